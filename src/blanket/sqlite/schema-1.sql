-- One row for each document, where it changed last: the order of changes is the order of the table, so that a new document
-- is appended to it and costs one page besides that of the index on ids.
CREATE TABLE doc (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    -- The checksum of the id and the rest (CRC-32, 4 bytes, little endian), then the revision tree.
    tree BLOB NOT NULL,
    -- Whether the winner is a deletion.
    deleted INTEGER NOT NULL,
    -- What the winner holds: its checksum, the attachments as JSON where there are any, the body.
    checksum INTEGER NOT NULL,
    attachments TEXT,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX doc_deleted ON doc (seq) WHERE deleted;
CREATE INDEX doc_attached ON doc (seq) WHERE attachments IS NOT NULL;

-- What the other leaves hold.
CREATE TABLE leaf (
    id TEXT NOT NULL,
    rev TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    attachments TEXT,
    body TEXT NOT NULL,
    UNIQUE (id, rev)
) STRICT;
CREATE INDEX leaf_attached ON leaf (id) WHERE attachments IS NOT NULL;

CREATE TABLE local (
    id TEXT PRIMARY KEY,
    edits INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE setting (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
