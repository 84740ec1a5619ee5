/* SPDX-License-Identifier: Apache-2.0 */
/* moved: folders that another mount has moved to another parent.
 *
 * A folder has one place in the kernel's tree of names. When a lookup finds it in another place the kernel moves it there, for which it needs two locks
 * (d_splice_alias: the file system's rename mutex and the old parent's); it only tries them, and when one is taken - somebody renames here, or
 * changes the old parent at this moment - the walk of the path fails with ESTALE. A path is walked a second time then, but not its last name when
 * something is to be made there; and the second walk may meet a taken lock, too. So where a lock may be taken, and on the second walk of a thread, a
 * folder that has moved is given to the kernel as a new inode, for which no lock is needed: the node that stood for it is retired. Same st_ino, same
 * folder; who still uses the old one (an open folder, a working directory) goes on with it, only getcwd(3) does not know its new name.
 *
 * A retired node is in no table and keeps nothing: no lease, so every answer about it has a time of zero, and pushes need not reach it. What is
 * changed through it counts as changed by another mount (moved_changed). */
#include "volume/mount/internal.h"

#define SECOND_WALK_MS 200 /* after a thread was told of a moved folder: this is its second walk */
#define TAKEN_MS       200 /* behind an operation of this mount that holds the locks */
#define UNCERTAIN_MS   500 /* after an answer with a new place: the kernel may not have moved it there */

static uint64_t place_of(const struct node *parent)
{
	return (uint64_t)parent->generation << 32 | parent->index;
}

/* Was this thread told of a moved folder just now? It is now, in any case. */
static bool second_walk(fuse_req_t req)
{
	static struct told told;

	return told_again(&told, req, SECOND_WALK_MS, true);
}

void naming_begin(struct node *folder)
{
	atomic_fetch_add(&folder->naming, 1);
	atomic_store(&folder->named_ms, clock_ms());
}

void naming_end(struct node *folder)
{
	atomic_store(&folder->named_ms, clock_ms());
	atomic_fetch_sub(&folder->naming, 1);
}

/* May the kernel's locks for moving something away from this place be taken now? */
static bool locks_taken(struct mount *m, uint64_t place)
{
	uint64_t now = clock_ms();
	struct node *parent;
	bool taken = atomic_load(&m->renames) > 0 || now - atomic_load(&m->moving_ms) < TAKEN_MS;

	if (taken)
		return true;
	parent = node_pin(m, (uint32_t)place);
	if (!parent)
		return false;
	taken = atomic_load(&parent->naming) > 0 || now - atomic_load(&parent->named_ms) < TAKEN_MS;
	node_unpin(m, parent);
	return taken;
}

/* Its place is the parent now. *ret_from: where the kernel may have it; 0 = here, or nowhere. */
static void has_moved(struct node *n, const struct node *parent, uint64_t *ret_from)
{
	uint64_t place = place_of(parent), now = clock_ms();

	pthread_mutex_lock(&n->lock);
	*ret_from = 0;
	if (n->place && n->place != place) {
		n->placed_from = n->place;
		n->placed_ms = now;
	}
	if (n->placed_ms && now - n->placed_ms < UNCERTAIN_MS)
		*ret_from = n->placed_from;
	n->place = place;
	pthread_mutex_unlock(&n->lock);
}

struct node *moved_lookup(struct mount *m, fuse_req_t req, struct node *parent, const struct vol_ino *ino)
{
	struct node *n = node_lookup(m, ino), *fresh;
	uint64_t from;
	bool second;

	if (!n || ino->num != 0)
		return n;
	has_moved(n, parent, &from);
	if (!from)
		return n;
	second = second_walk(req);
	if (!second && !locks_taken(m, from))
		return n;
	if (node_retire(m, n))
		cache_retired(m, n);
	fresh = node_lookup(m, ino);
	if (fresh)
		has_moved(fresh, parent, &from);
	node_forget(m, n, 1);
	return fresh;
}

void moved_listed(struct node *n, const struct node *parent)
{
	pthread_mutex_lock(&n->lock);
	if (!n->place)
		n->place = place_of(parent);
	pthread_mutex_unlock(&n->lock);
}

void moved_here(struct mount *m, const struct vol_ino *ino, const struct node *parent)
{
	struct node *n = ino->num == 0 ? node_find(m, ino) : NULL;

	if (!n)
		return;
	pthread_mutex_lock(&n->lock);
	n->place = place_of(parent);
	n->placed_ms = 0;
	pthread_mutex_unlock(&n->lock);
	node_unpin(m, n);
}

void moved_changed(struct mount *m, struct node *folder)
{
	struct node *n;

	if (!atomic_load(&folder->retired))
		return;
	n = node_find(m, &folder->ino);
	if (n)
		cache_folder_changed(m, n);
	if (n)
		node_unpin(m, n);
}
