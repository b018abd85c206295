"""The batch tables' DDL before SQLAlchemy generated it: databases created at that time have these tables."""

from __future__ import annotations

BEFORE = {
    "mysql": """
CREATE TABLE IF NOT EXISTS laibao_batch_tasks (
  task_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  owner VARBINARY(512) NOT NULL,
  idempotency_key VARBINARY(512) NULL,
  digest VARBINARY(512) NOT NULL,
  name VARCHAR(2000) NOT NULL,
  description VARCHAR(2000) NOT NULL,
  options MEDIUMTEXT NOT NULL,
  credential MEDIUMTEXT NOT NULL,
  status VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  max_concurrent INT NULL,
  total INT NOT NULL,
  completed INT NOT NULL DEFAULT 0,
  failed INT NOT NULL DEFAULT 0,
  served BIGINT NOT NULL,
  stored INT NOT NULL DEFAULT 0,
  paused BIGINT NOT NULL DEFAULT 0,
  paused_at DATETIME(6) NULL,
  created_at DATETIME(6) NOT NULL,
  started_at DATETIME(6) NULL,
  ended_at DATETIME(6) NULL,
  error_message MEDIUMTEXT NOT NULL,
  PRIMARY KEY (task_id),
  UNIQUE KEY laibao_batch_tasks_key (owner, idempotency_key),
  KEY laibao_batch_tasks_line (status, served),
  KEY laibao_batch_tasks_owner (owner, created_at),
  KEY laibao_batch_tasks_created (created_at),
  KEY laibao_batch_tasks_ended (ended_at),
  KEY laibao_batch_tasks_stored (stored, ended_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS laibao_batch_items (
  task_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  item_index INT NOT NULL,
  question MEDIUMTEXT NOT NULL,
  status VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT 'pending',
  due BIGINT NOT NULL DEFAULT 0,
  lane INT NULL,
  attempts INT NOT NULL DEFAULT 0,
  started_at DATETIME(6) NULL,
  ended_at DATETIME(6) NULL,
  answer MEDIUMTEXT NULL,
  metadata MEDIUMTEXT NULL,
  sources MEDIUMTEXT NULL,
  spent MEDIUMTEXT NULL,
  error_code VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
  error_message MEDIUMTEXT NULL,
  PRIMARY KEY (task_id, item_index),
  KEY laibao_batch_items_next (task_id, status, due, item_index),
  UNIQUE KEY laibao_batch_items_lane (lane)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS laibao_batch_gates (
  name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  passed BIGINT NOT NULL,
  PRIMARY KEY (name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
""",
    "sqlite": """
CREATE TABLE IF NOT EXISTS laibao_batch_tasks (
  task_id TEXT NOT NULL,
  owner BLOB NOT NULL,
  idempotency_key BLOB NULL,
  digest BLOB NOT NULL,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  options TEXT NOT NULL,
  credential TEXT NOT NULL,
  status TEXT NOT NULL,
  max_concurrent INTEGER NULL,
  total INTEGER NOT NULL,
  completed INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  served INTEGER NOT NULL,
  stored INTEGER NOT NULL DEFAULT 0,
  paused INTEGER NOT NULL DEFAULT 0,
  paused_at TEXT NULL,
  created_at TEXT NOT NULL,
  started_at TEXT NULL,
  ended_at TEXT NULL,
  error_message TEXT NOT NULL,
  PRIMARY KEY (task_id)
);

CREATE UNIQUE INDEX IF NOT EXISTS laibao_batch_tasks_key ON laibao_batch_tasks (owner, idempotency_key);

CREATE INDEX IF NOT EXISTS laibao_batch_tasks_line ON laibao_batch_tasks (status, served);

CREATE INDEX IF NOT EXISTS laibao_batch_tasks_owner ON laibao_batch_tasks (owner, created_at);

CREATE INDEX IF NOT EXISTS laibao_batch_tasks_created ON laibao_batch_tasks (created_at);

CREATE INDEX IF NOT EXISTS laibao_batch_tasks_ended ON laibao_batch_tasks (ended_at);

CREATE INDEX IF NOT EXISTS laibao_batch_tasks_stored ON laibao_batch_tasks (stored, ended_at);

CREATE TABLE IF NOT EXISTS laibao_batch_items (
  task_id TEXT NOT NULL,
  item_index INTEGER NOT NULL,
  question TEXT NOT NULL,
  status TEXT NOT NULL DEFAULT 'pending',
  due INTEGER NOT NULL DEFAULT 0,
  lane INTEGER NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  started_at TEXT NULL,
  ended_at TEXT NULL,
  answer TEXT NULL,
  metadata TEXT NULL,
  sources TEXT NULL,
  spent TEXT NULL,
  error_code TEXT NULL,
  error_message TEXT NULL,
  PRIMARY KEY (task_id, item_index)
);

CREATE INDEX IF NOT EXISTS laibao_batch_items_next ON laibao_batch_items (task_id, status, due, item_index);

CREATE UNIQUE INDEX IF NOT EXISTS laibao_batch_items_lane ON laibao_batch_items (lane);

CREATE TABLE IF NOT EXISTS laibao_batch_gates (
  name TEXT NOT NULL,
  passed INTEGER NOT NULL,
  PRIMARY KEY (name)
);
""",
}
