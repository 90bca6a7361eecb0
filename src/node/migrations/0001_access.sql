-- Who may use the node. Times are seconds since 1970; secrets are kept as hashes only.
CREATE TABLE account (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('owner', 'member')),
    created_s INTEGER NOT NULL,
    -- Null together while no password was set: nobody logs in then.
    password_salt BLOB,
    password_hash BLOB,
    password_memory_kib INTEGER,
    password_passes INTEGER
) STRICT;

CREATE TABLE session (
    hash BLOB PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    created_s INTEGER NOT NULL,
    used_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE token (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    account INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    -- Bits, one for each scope.
    scopes INTEGER NOT NULL,
    created_s INTEGER NOT NULL,
    expires_s INTEGER,
    used_s INTEGER
) STRICT, WITHOUT ROWID;

-- What someone may want to know afterwards; bounded by who writes it, and without secrets.
CREATE TABLE security_log (
    id INTEGER PRIMARY KEY,
    at_s INTEGER NOT NULL,
    kind TEXT NOT NULL,
    account TEXT,
    address TEXT,
    subject TEXT
) STRICT;
