/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes that need not resist an attacker, and random bytes that must. */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint32_t hash_fnv32(const void *data, size_t len); /* FNV-1a */
uint64_t hash_fnv64(const void *data, size_t len); /* FNV-1a */
void random_bytes(void *out, size_t len);	   /* getrandom(2) */
/* n characters of [bcdfghjklmnpqrstvwxz2456789], as Kubernetes names its pods; out has n + 1 bytes. */
void random_name(char *out, size_t n);
/* RFC 4122 version 4. */
void random_uuid(char out[37]);
