//! Rows R26 and R30: little memory, few descriptors, and the SQLite that may be trusted.

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use super::cgroup::MemoryGroup;
use super::driver::Claimed;
use super::folder;
use super::seed::{Count, Rng};
use crate::measure::{memory_kib, reset_peak};
use crate::support::{ANSWER_WITHIN, Http, Node, refuge};

/// Bytes of the upload whose memory is measured.
const UPLOAD_MIB: Count = Count {
    sample: 192,
    full: 2048,
};

/// Memory of the group that the node runs in, cached pages of its files counted.
const GROUP_BYTES: u64 = 128 * 1024 * 1024;

/// The most of it that may be the node's own, in KiB.
const RESIDENT_KIB_MAX: u64 = 96 * 1024;

/// Small blobs it takes before, and how many at once.
const MANY: Count = Count {
    sample: 5_000,
    full: 100_000,
};
const BATCH: usize = 1000;

/// The most an upload may add to the resident memory, in KiB.
const UPLOAD_ADDS_KIB: u64 = 8 * 1024;

/// How long the hammer falls, in seconds: it inserts as much as it can.
const HAMMER_S: Count = Count {
    sample: 20,
    full: 600,
};

const CONNECTIONS: i64 = 8;

/// The oldest SQLite without the race that loses commits when the log is reset (reliability.md).
const SQLITE_OLDEST: i32 = 3_051_003;

#[test]
fn a_node_without_descriptors_says_so_and_goes_on() {
    let claimed = Claimed::template();
    let found = folder::scratch();
    let data = found.path().join("data");
    claimed.copy_to(&data);
    let program = refuge().get_program().to_owned();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(program)
        .stdin(std::process::Stdio::null());
    let node = Node::start_as(command, &data).expect("64 descriptors are enough to start");
    let mut held: Vec<Http> = Vec::new();
    let mut served = 0;
    for n in 0..120_u64 {
        // Refused, closed or answered: all are right, as long as the node lives.
        let Ok(mut http) = node.client(&claimed.token) else {
            continue;
        };
        match http.send("POST", "/blobs", &[], &Rng::fixed(n).bytes(2000)) {
            Ok(answer) => {
                assert!(
                    answer.is_success() || answer.status == 503,
                    "{}: {}",
                    answer.status,
                    answer.text()
                );
                served += 1;
                held.push(http);
            }
            Err(_) => drop(http),
        }
    }
    assert!(served >= 20, "only {served} were served");
    drop(held);
    let mut http = node.client(&claimed.token).expect("it listens");
    let answer = http
        .send("POST", "/blobs", &[], b"after the crowd")
        .expect("an answer");
    assert!(answer.is_success(), "{}: {}", answer.status, answer.text());
    assert!(node.terminate().expect("it ends when asked").success());
}

#[test]
fn a_node_with_little_memory_takes_many_blobs_and_a_large_one() {
    let claimed = Claimed::template();
    // Not in memory: two gibibytes are too much of it.
    let found = tempfile::tempdir().expect("a temporary folder");
    let data = found.path().join("data");
    claimed.copy_to(&data);
    let group = MemoryGroup::make(GROUP_BYTES);
    let command = match &group {
        Some(group) => group.run(&refuge()),
        None => {
            eprintln!("skipped in part: no memory cgroup can be made here, so nothing enforces the limit");
            refuge()
        }
    };
    let node = Node::start_as(command, &data).expect("a node starts");
    let mut http = node.client(&claimed.token).expect("it listens");
    for batch in 0..MANY.rounds() / BATCH {
        let answer = http
            .send("POST", "/blobs/_batch", &[], &records(batch))
            .expect("an answer");
        assert!(answer.is_success(), "{}: {}", answer.status, answer.text());
    }
    // The first of each kind makes what is made once: threads, pools, tables.
    let warm = Rng::fixed(1).bytes(8 << 20);
    assert!(
        http.send("POST", "/blobs", &[], &warm)
            .expect("an answer")
            .is_success()
    );
    let before = memory_kib(node.pid(), "VmRSS");
    reset_peak(node.pid());
    let len = UPLOAD_MIB.rounds() as u64 * (1 << 20);
    let body = Repeated {
        block: Rng::fixed(2).bytes(1 << 20),
        at: 0,
    }
    .take(len);
    let answer = http
        .send_from("POST", "/blobs", &[], len, body)
        .expect("an answer");
    assert!(answer.is_success(), "{}: {}", answer.status, answer.text());
    let added = memory_kib(node.pid(), "VmHWM").saturating_sub(before);
    assert!(
        added <= UPLOAD_ADDS_KIB,
        "{len} bytes added {added} KiB to the {before} KiB before"
    );
    let most = memory_kib(node.pid(), "VmHWM");
    eprintln!("{before} KiB, and {added} KiB more during an upload of {len} bytes");
    assert!(most <= RESIDENT_KIB_MAX, "{most} KiB at most");
    let listed = http.send("GET", "/blobs?limit=1", &[], &[]).expect("an answer");
    assert!(listed.is_success(), "{}", listed.text());
    assert!(node.terminate().expect("it ends when asked").success());
    assert_eq!(group.map_or(0, |group| group.killed()), 0);
}

/// A batch of small blobs, as `/blobs/_batch` takes them.
fn records(batch: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for number in 0..BATCH {
        let bytes = Rng::fixed((batch * BATCH + number) as u64 + 7).bytes(200);
        let len = u32::try_from(bytes.len()).expect("a small blob");
        body.push(1);
        body.extend_from_slice(&len.to_le_bytes());
        body.extend_from_slice(blake3::hash(&bytes).as_bytes());
        body.extend_from_slice(&bytes);
    }
    body
}

/// A block again and again, with a counter in it, so that no two parts are equal.
struct Repeated {
    block: Vec<u8>,
    at: u64,
}

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let from = usize::try_from(self.at % self.block.len() as u64).expect("inside the block");
        let len = buffer.len().min(self.block.len() - from);
        buffer[..len].copy_from_slice(&self.block[from..from + len]);
        if len >= 8 {
            buffer[..8].copy_from_slice(&self.at.to_le_bytes());
        }
        self.at += len as u64;
        Ok(len)
    }
}

#[test]
fn sqlite_is_new_enough_and_keeps_commits_of_many_connections() {
    assert!(
        rusqlite::version_number() >= SQLITE_OLDEST,
        "SQLite {} loses commits",
        rusqlite::version()
    );
    let found = tempfile::tempdir().expect("a temporary folder");
    let path = found.path().join("hammer.db");
    let open = || {
        let db = rusqlite::Connection::open(&path).expect("a database");
        db.busy_timeout(ANSWER_WITHIN).expect("a timeout");
        db.pragma_update(None, "journal_mode", "WAL")
            .expect("write-ahead log");
        db.pragma_update(None, "wal_autocheckpoint", 8)
            .expect("a checkpoint every few pages");
        db
    };
    open()
        .execute_batch("CREATE TABLE t (connection INTEGER, n INTEGER)")
        .expect("a table");
    let over = Instant::now() + Duration::from_secs(HAMMER_S.rounds() as u64);
    let inserted: i64 = std::thread::scope(|scope| {
        let hammer = |connection| {
            let db = open();
            let mut inserted = 0;
            while inserted == 0 || Instant::now() < over {
                db.execute("INSERT INTO t VALUES (?1, ?2)", [connection, inserted])
                    .expect("an insert");
                if inserted % 20 == connection {
                    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                        .expect("a checkpoint");
                }
                inserted += 1;
            }
            inserted
        };
        let hammers: Vec<_> = (0..CONNECTIONS)
            .map(|connection| scope.spawn(move || hammer(connection)))
            .collect();
        let inserted = hammers.into_iter().map(|hammer| hammer.join().expect("no panic"));
        inserted.sum()
    });
    eprintln!("{inserted} inserts on {CONNECTIONS} connections");
    let db = open();
    let kept: i64 = db
        .query_row(
            "SELECT count(DISTINCT connection * 1000000000 + n) FROM t",
            [],
            |row| row.get(0),
        )
        .expect("a count");
    assert_eq!(kept, inserted);
    let sound: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("a check");
    assert_eq!(sound, "ok");
}
