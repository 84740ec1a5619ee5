# SPDX-License-Identifier: Apache-2.0
"""Programs that people run, on a mount: each function takes a folder, does its work in a folder of its own, checks the result and
returns a text about it; AssertionError or CalledProcessError when it is wrong.

    python3 -m test.posix.programs DIR [--only git,sqlite,...] [--seconds N]"""
import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@contextlib.contextmanager
def workplace(folder, name):
    path = f"{folder}/{name}-{os.getpid()}"
    os.mkdir(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sh(*argv, seconds=300, **options):
    p = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=seconds, **options)
    assert p.returncode == 0, f"{' '.join(map(str, argv))}: status {p.returncode}: {(p.stdout + p.stderr)[-1500:]}"
    return p.stdout


def dbench(folder, seconds):
    with workplace(folder, "dbench") as d:
        out = sh("dbench", "-t", seconds, "-D", d, "-c", "/usr/share/dbench/client.txt", 4, seconds=seconds * 10 + 120)
        line = next((x for x in out.splitlines() if x.startswith("Throughput")), "")
        assert line and "Child failed" not in out and "ERROR" not in out, out[-1500:]
        return line


def fio(folder, seconds):
    """Random and sequential writes in several sizes, all verified by checksum, two jobs at once, some with O_DIRECT."""
    with workplace(folder, "fio") as d:
        for name, more in (("mixed", ["--rw=randwrite", "--bsrange=512-256k", "--bs_unaligned"]), ("direct", ["--rw=randwrite", "--bs=4k", "--direct=1"]),
                           ("sequential", ["--rw=write", "--bs=1m", "--end_fsync=1"]), ("mapped", ["--rw=randwrite", "--bs=4k", "--ioengine=mmap"])):
            sh("fio", f"--name={name}", f"--directory={d}", "--size=16m", "--numjobs=2", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1",
               "--serialize_overlap=0", f"--randseed={seconds}", "--group_reporting", *more, seconds=seconds * 10 + 240, cwd=d)
        return "4 jobs of 2 x 16 MiB verified"


def git(folder, seconds):
    """A clone of this repository, whole by git's own check, and a part of it compiled there."""
    with workplace(folder, "git") as d:
        sh("git", "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", f"file://{SOURCE}", f"{d}/clone")
        sh("git", "-C", f"{d}/clone", "fsck", "--full")
        assert sh("git", "-C", f"{d}/clone", "status", "--porcelain") == ""
        sh("git", "-C", f"{d}/clone", "gc", "-q")
        sources = sorted(f"src/base/{f}" for f in os.listdir(f"{d}/clone/src/base") if f.endswith(".c"))
        for f in sources:
            sh("gcc", "-std=gnu17", "-D_GNU_SOURCE", "-DKUAYU_VERSION=\"0\"", "-Isrc", "-c", f, "-o", f + ".o", cwd=f"{d}/clone")
        sh("ar", "rcs", "libbase.a", *[f + ".o" for f in sources], cwd=f"{d}/clone")
        assert len(sh("ar", "t", "libbase.a", cwd=f"{d}/clone").split()) == len(sources)
        sh("git", "-C", f"{d}/clone", "-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-q", "--allow-empty", "-m", "x")
        return f"cloned, {len(sources)} files compiled"


def sqlite(folder, seconds):
    """Transfers between accounts from several connections, in both journal modes: the sum never changes, the file stays whole."""
    told = []
    with workplace(folder, "sqlite") as d:
        for mode in ("wal", "delete", "truncate"):
            path = f"{d}/{mode}.db"
            db = sqlite3.connect(path, timeout=30)
            got = db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0]
            assert got == mode, f"journal mode is {got}, should be {mode}"
            db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, sum INTEGER)")
            db.executemany("INSERT INTO account VALUES (?, 100)", [(i,) for i in range(50)])
            db.commit()
            done, errors, end = [0, 0, 0], [], time.monotonic() + seconds / 3

            def transfers(who):
                try:
                    own, n = sqlite3.connect(path, timeout=30), 0
                    while time.monotonic() < end:
                        own.execute("BEGIN IMMEDIATE")
                        own.execute("UPDATE account SET sum = sum - 1 WHERE id = ?", ((n * 7 + who) % 50,))
                        own.execute("UPDATE account SET sum = sum + 1 WHERE id = ?", ((n * 11 + who + 1) % 50,))
                        own.commit()
                        n += 1
                    done[who] = n
                    own.close()
                except sqlite3.Error as e:
                    errors.append(str(e))
            threads = [threading.Thread(target=transfers, args=(i,)) for i in range(3)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            assert not errors, errors
            assert db.execute("SELECT sum(sum) FROM account").fetchone()[0] == 5000
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            db.close()
            told.append(f"{mode} {sum(done)} transfers")
        return ", ".join(told)


def mariadb(folder, seconds):
    """A server with its data there: rows inserted and counted, killed in the middle, started again, nothing acknowledged is lost."""
    with workplace(folder, "mariadb") as d:
        data, sock = f"{d}/data", f"/tmp/posix-mariadb-{os.getpid()}.sock"
        sh("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--auth-root-authentication-method=normal",
           "--skip-test-db", "--innodb-log-file-size=16M", seconds=240)
        argv = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={sock}", "--skip-networking", "--innodb-log-file-size=16M",
                f"--log-error={d}/error.log", f"--pid-file={d}/pid", "--innodb-flush-log-at-trx-commit=1", "--wsrep-on=OFF"]

        def sql(text, check=True):
            p = subprocess.run(["mariadb", "--no-defaults", f"--socket={sock}", "-uroot", "-N", "-B", "-e", text], capture_output=True, text=True, timeout=60)
            assert not check or p.returncode == 0, p.stderr
            return p.stdout.strip() if p.returncode == 0 else None

        def start():
            server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            end = time.monotonic() + 120
            while sql("SELECT 1", check=False) != "1":
                assert time.monotonic() < end and server.poll() is None, "mariadbd does not start: " + open(f"{d}/error.log").read()[-1000:]
                time.sleep(0.1)
            return server
        server = start()
        try:
            sql("CREATE DATABASE t; CREATE TABLE t.r (id INT PRIMARY KEY, text VARCHAR(200)) ENGINE=InnoDB")
            count, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                sql("".join(f"INSERT INTO t.r VALUES ({count + i}, '{hashlib.md5(str(count + i).encode()).hexdigest()}');" for i in range(50)))
                count += 50
            server.send_signal(signal.SIGKILL)
            server.wait()
            server = start()
            assert int(sql("SELECT count(*) FROM t.r")) >= count, "acknowledged rows are lost"
            assert sql("SELECT count(*) FROM t.r WHERE BINARY text <> BINARY md5(id)") == "0"
            assert "OK" in sql("CHECK TABLE t.r")
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        return f"{count} rows, kept over a kill"


PROGRAMS = {"dbench": dbench, "fio": fio, "git": git, "sqlite": sqlite, "mariadb": mariadb}


def main():
    p = argparse.ArgumentParser(prog="python3 -m test.posix.programs")
    p.add_argument("folder")
    p.add_argument("--only")
    p.add_argument("--seconds", type=int, default=5)
    a = p.parse_args()
    bad = 0
    for name in a.only.split(",") if a.only else PROGRAMS:
        start = time.monotonic()
        try:
            print(f"{name}: {PROGRAMS[name](a.folder, a.seconds)} ({time.monotonic() - start:.1f} s)")
        except (AssertionError, OSError, subprocess.SubprocessError, sqlite3.Error) as e:
            bad += 1
            print(f"{name}: FAILED: {e}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
