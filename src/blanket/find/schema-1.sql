-- What the file was made for: the database, the format of keys and the tables of Unicode they come from. Anything else in it is
-- of no use, and the file is made anew.
CREATE TABLE origin (
    database BLOB NOT NULL,
    keys     BLOB NOT NULL
) STRICT;

-- One index: up to where its database's changes are in it, and what tells whether its entries are all there and as they were
-- written.
CREATE TABLE built (
    number    INTEGER PRIMARY KEY,
    signature BLOB NOT NULL UNIQUE,
    seq       INTEGER NOT NULL,
    -- The document that changed there, and its winner then.
    last_id   TEXT,
    last_rev  TEXT,
    entries   INTEGER NOT NULL,
    -- The sum of the entries' checksums.
    checksum  INTEGER NOT NULL,
    -- The checksum of this row.
    own       INTEGER NOT NULL
) STRICT;

-- A document in an index. Bytes stand in the order of the values they are made of.
CREATE TABLE entry (
    number INTEGER NOT NULL,
    key    BLOB NOT NULL,
    id     TEXT NOT NULL,
    PRIMARY KEY (number, key, id)
) STRICT, WITHOUT ROWID;

-- For what a document's entry was before it changed.
CREATE INDEX entry_of_doc ON entry (number, id);
