# SPDX-License-Identifier: Apache-2.0
"""The traditional architecture on the same lab: one central domain (b) with one MES server and one primary MariaDB; an asynchronous
replica in domain a. Machines and offices know one address. When the central domain dies a person promotes the replica, starts the MES
beside it and moves the address. The database is as durable as the product's (each commit is flushed)."""
from lab.factory import MES, PORT
from lab.util import wait_for

CENTRAL, STANDBY = "b", "a"
ADDRESS = "10.77.9.9"  # the one address everyone knows
DATA = "/var/lib/kuayu/mysql"
SQL_SOCKET = "/run/mysqld.sock"
PASSWORD = "lab-mes"


def url(_domain=None):
    return [f"http://{ADDRESS}:{PORT}"]


class Traditional:
    def __init__(self, lab):
        self.lab = lab

    def sql(self, domain, text, database=""):
        """Rows as lists of texts."""
        p = self.lab.exec(domain, "mariadb", "--no-defaults", "-uroot", f"-S{SQL_SOCKET}", "-N", "-B", "-e", text, *([database] if database else []))
        return [line.split("\t") for line in p.stdout.splitlines()]

    def _database(self, domain, number, extra=()):
        m = self.lab.machine(domain)
        m.exec("mariadb-install-db", "--no-defaults", f"--datadir={DATA}", "--auth-root-authentication-method=normal", "--skip-test-db",
               "--user=root", timeout=60)
        m.add_unit("mariadb", [
            "/usr/sbin/mariadbd", "--no-defaults", "--user=root", f"--datadir={DATA}", f"--socket={SQL_SOCKET}", "--pid-file=/run/mariadb.pid",
            "--bind-address=0.0.0.0", f"--server-id={number}", "--log-bin=bin", "--gtid-strict-mode=1", "--log-slave-updates",
            "--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1", "--innodb-buffer-pool-size=128M", "--skip-name-resolve",
            "--max-connections=200", *extra])

    def _wait_database(self, domain):
        wait_for(f"MariaDB of domain {domain}", lambda: self.sql(domain, "SELECT 1") == [["1"]], 30, [self.lab.machine(domain).log("mariadb")])

    def _mes(self, domain):
        m = self.lab.machine(domain)
        m.add_unit("mes", [MES / "mes-server", "--db-host=127.0.0.1", f"--site={m.name}"], env={"MES_DB_PASSWORD": PASSWORD})

    def _take_address(self, domain):
        m = self.lab.machine(domain)
        m.exec("ip", "addr", "add", f"{ADDRESS}/32", "dev", "eth0")
        for other in self.lab.machines():  # what the gratuitous ARP of a moved address does
            if other.on and other is not m:
                other.exec("ip", "neigh", "flush", "to", ADDRESS, check=False)

    def deploy(self):
        self._database(CENTRAL, 1)
        self._database(STANDBY, 2, ["--read-only=1"])
        for domain in (CENTRAL, STANDBY):
            self._wait_database(domain)
        self.sql(CENTRAL, f"CREATE USER repl@'%' IDENTIFIED BY 'repl'; GRANT REPLICATION SLAVE ON *.* TO repl@'%';"
                 f"CREATE DATABASE mes; CREATE USER mes@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON mes.* TO mes@'%'")
        self.sql(STANDBY, "SET GLOBAL gtid_slave_pos=''; RESET MASTER;"
                 f"CHANGE MASTER TO MASTER_HOST='{self.lab.machine(CENTRAL).address}', MASTER_USER='repl', MASTER_PASSWORD='repl',"
                 "MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1; START SLAVE")
        self._mes(CENTRAL)
        self._take_address(CENTRAL)
        wait_for("the replica follows", lambda: self.sql(STANDBY, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='mes'")[0][0] >= "4",
                 20, [self.lab.machine(STANDBY).log("mariadb"), self.lab.machine(CENTRAL).log("mes")])

    def restart_by_hand(self):
        """What the person who was called does, without a moment's thought."""
        self.sql(STANDBY, "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=0")
        self._mes(STANDBY)
        self._take_address(STANDBY)

    def rows(self, text):
        """From the database that is in charge now."""
        return self.sql(STANDBY if not self.lab.machine(CENTRAL).on or "mes" in self.lab.machine(STANDBY).units else CENTRAL, text, "mes")
