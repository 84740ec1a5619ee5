-- The MES's tables. Every table has a primary key (Galera needs one). Idempotency: orders.idem_key and reports (machine, seq).
CREATE TABLE IF NOT EXISTS orders (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  idem_key VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  product VARCHAR(32) CHARACTER SET ascii NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  source VARCHAR(32) CHARACTER SET ascii NOT NULL,
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (id),
  UNIQUE KEY idem_key (idem_key)
) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS work_orders (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  order_id BIGINT UNSIGNED NOT NULL,
  machine VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  quantity INT UNSIGNED NOT NULL,
  state TINYINT UNSIGNED NOT NULL DEFAULT 0 COMMENT '0 new, 1 received by the machine',
  created_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  received_at DATETIME(3) NULL,
  PRIMARY KEY (id),
  KEY waiting (state, machine),
  KEY by_order (order_id)
) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS reports (
  machine VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  state VARCHAR(16) CHARACTER SET ascii NOT NULL,
  produced INT UNSIGNED NOT NULL COMMENT 'pieces since the last report',
  machine_at DATETIME(3) NOT NULL COMMENT 'the machine''s own clock',
  stored_at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3),
  PRIMARY KEY (machine, seq)
) ENGINE=InnoDB;
CREATE TABLE IF NOT EXISTS machines (
  name VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  site VARCHAR(32) CHARACTER SET ascii NOT NULL,
  state VARCHAR(16) CHARACTER SET ascii NOT NULL,
  seq BIGINT UNSIGNED NOT NULL,
  seen_at DATETIME(3) NOT NULL,
  PRIMARY KEY (name)
) ENGINE=InnoDB;
