//! A folder of bundles: what comes, what is kept, what is offered.

use super::*;
use crate::node::update::UpdateTrouble;

fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut out);
    out
}

fn coming(bytes: &[u8], mark: Option<&str>) -> Coming {
    Coming {
        from: "https://example.org/a.raucb".to_owned(),
        size_bytes: bytes.len() as u64,
        mark: mark.map(str::to_owned),
    }
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn home() -> IpAddr {
    IpAddr::from([10, 0, 0, 1])
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        Bench { dir }
    }

    fn open(&self) -> Bundles {
        Bundles::open(self.dir.path().join("bundles"))
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir.path().join("bundles")) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".old"))
            .collect();
        names.sort();
        names
    }
}

async fn take_in(bundles: &Bundles, bytes: &[u8]) {
    let mut arriving = bundles.begin(coming(bytes, Some("1"))).await.unwrap();
    let there = usize::try_from(arriving.received()).unwrap();
    for piece in bytes[there..].chunks(100_000) {
        arriving.write(piece).await.unwrap();
    }
    assert_eq!(arriving.finish().await.unwrap(), BlobId::of(bytes));
}

async fn run(bundles: &Bundles, bytes: &[u8], text: &str) {
    take_in(bundles, bytes).await;
    bundles.found(version(text)).await.unwrap();
    bundles
        .settle(version(text), "refuge-x".to_owned())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_was_cut_off_goes_on_where_it_was_also_after_a_restart() {
    let (bench, bytes) = (Bench::new(), noise(1_000_000, 1));
    {
        let bundles = bench.open();
        let mut arriving = bundles.begin(coming(&bytes, Some("1"))).await.unwrap();
        for piece in bytes[..700_000].chunks(100_000) {
            arriving.write(piece).await.unwrap();
        }
    }
    let bundles = bench.open();
    bundles
        .settle(version("0.1.0"), "refuge-x".to_owned())
        .await
        .unwrap();
    let mut arriving = bundles.begin(coming(&bytes, Some("1"))).await.unwrap();
    let there = usize::try_from(arriving.received()).unwrap();
    assert!((400_000..=700_000).contains(&there), "{there}");
    assert_eq!(arriving.read(0, 1000).await.unwrap(), bytes[..1000]);
    arriving.write(&bytes[there..]).await.unwrap();
    assert_eq!(arriving.finish().await.unwrap(), BlobId::of(&bytes));
    assert_eq!(bundles.came(999_000).await.unwrap(), bytes[999_000..]);
}

#[tokio::test]
async fn another_bundle_and_one_without_a_mark_begin_anew() {
    let (bench, bytes) = (Bench::new(), noise(500_000, 1));
    let bundles = bench.open();
    for (mark, next) in [(Some("1"), Some("2")), (None, None)] {
        let mut arriving = bundles.begin(coming(&bytes, mark)).await.unwrap();
        arriving.write(&bytes[..400_000]).await.unwrap();
        drop(arriving);
        let arriving = bundles.begin(coming(&bytes, next)).await.unwrap();
        assert_eq!(arriving.received(), 0);
    }
}

#[tokio::test]
async fn what_does_not_fit_leaves_nothing() {
    let bench = Bench::new();
    let bundles = bench.open();
    let huge = Coming {
        size_bytes: u64::MAX,
        ..coming(b"", Some("1"))
    };
    let Err(Error::Update(UpdateTrouble::Bundle { .. })) = bundles.begin(huge).await.map(drop) else {
        panic!("no slot is that large");
    };
    assert_eq!(bench.files(), Vec::<String>::new());
    let mut arriving = bundles.begin(coming(b"abc", None)).await.unwrap();
    let Err(Error::TooLarge { limit: 3 }) = arriving.write(b"abcd").await else {
        panic!("more than was to come");
    };
    let Err(Error::Invalid { .. }) = arriving.finish().await else {
        panic!("nothing came");
    };
}

#[tokio::test]
async fn that_others_may_have_it_is_said_by_the_owner_and_known_after_a_restart() {
    let bench = Bench::new();
    for is_offering in [true, true, false, false] {
        let bundles = bench.open();
        bundles.offer(is_offering).await.unwrap();
        assert_eq!(bundles.is_offering(), is_offering);
        assert_eq!(bench.open().is_offering(), is_offering);
    }
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_bundle_that_runs_is_offered_by_its_parts_and_nothing_else_is() {
    let (bench, bytes) = (Bench::new(), noise(1_000_000, 1));
    let bundles = bench.open();
    take_in(&bundles, &bytes).await;
    bundles
        .settle(version("0.1.0"), "refuge-x".to_owned())
        .await
        .unwrap();
    assert_eq!(bundles.offered(), None, "it was not verified yet");
    run(&bundles, &bytes, "0.2.0").await;
    assert_eq!(bench.files(), ["kept.json", "kept.raucb"]);
    let offered = bundles.offered().unwrap();
    assert_eq!(
        (&offered.version, &*offered.compatible),
        (&version("0.2.0"), "refuge-x")
    );
    assert_eq!(BundleManifest::parse(&offered.bytes()), Ok(offered.clone()));
    let mut whole = Vec::new();
    for part in &offered.parts {
        let permit = bundles.admit(home()).unwrap();
        let mut reading = bundles.part(part.id, permit).await.unwrap();
        assert_eq!(reading.size_bytes(), part.size_bytes);
        whole.extend_from_slice(&reading.take().unwrap());
    }
    assert_eq!(whole, bytes);
    for other in [BlobId::of(b"other"), BlobId::of(&bytes)] {
        let permit = bundles.admit(home()).unwrap();
        assert!(matches!(
            bundles.part(other, permit).await.map(drop),
            Err(Error::Missing { .. })
        ));
    }
    // The same after a restart, once it is known what runs; not where another system runs.
    let bundles = bench.open();
    assert_eq!(bundles.offered(), None);
    bundles
        .settle(version("0.2.0"), "refuge-x".to_owned())
        .await
        .unwrap();
    assert_eq!(bundles.offered().as_ref(), Some(&offered));
    bundles
        .settle(version("0.1.0"), "refuge-x".to_owned())
        .await
        .unwrap();
    assert_eq!(bundles.offered(), None);
    let own = bundles.own_part(offered.parts[0].id).await.unwrap();
    assert!(own.is_some(), "what ran before is at hand all the same");
}

#[tokio::test]
async fn a_bundle_that_did_not_stay_is_forgotten() {
    let (bench, bytes) = (Bench::new(), noise(300_000, 1));
    let bundles = bench.open();
    take_in(&bundles, &bytes).await;
    bundles.found(version("0.2.0")).await.unwrap();
    bundles
        .settle(version("0.1.0"), "refuge-x".to_owned())
        .await
        .unwrap();
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[tokio::test]
async fn a_power_cut_while_it_is_kept_is_made_good() {
    let (bench, bytes) = (Bench::new(), noise(300_000, 1));
    run(&bench.open(), &bytes, "0.2.0").await;
    let newer = noise(300_000, 2);
    let bundles = bench.open();
    take_in(&bundles, &newer).await;
    bundles.found(version("0.3.0")).await.unwrap();
    // Its manifest is there, its bytes are not yet.
    let folder = bench.dir.path().join("bundles");
    let file = File::open(folder.join("next.raucb")).unwrap();
    let (blob, parts) = cut(&file).unwrap();
    let manifest = BundleManifest::new(version("0.3.0"), "refuge-x".to_owned(), blob, parts);
    durable::replace(&folder.join("kept.json"), &manifest.bytes()).unwrap();
    let part = manifest.parts[0].id;
    let bundles = bench.open();
    assert_eq!(
        bundles.own_part(part).await.unwrap(),
        None,
        "the bytes are not those"
    );
    bundles
        .settle(version("0.3.0"), "refuge-x".to_owned())
        .await
        .unwrap();
    assert!(bundles.own_part(part).await.unwrap().is_some());
    // The bytes are there, their record is still that of one that came.
    fs::copy(folder.join("kept.json"), folder.join("next.json")).unwrap();
    bench
        .open()
        .settle(version("0.3.0"), "refuge-x".to_owned())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_damaged_part_ends_the_offer() {
    let (bench, bytes) = (Bench::new(), noise(300_000, 1));
    let bundles = bench.open();
    run(&bundles, &bytes, "0.2.0").await;
    let part = bundles.offered().unwrap().parts[0];
    let file = fs::OpenOptions::new()
        .write(true)
        .open(bench.dir.path().join("bundles/kept.raucb"))
        .unwrap();
    file.write_all_at(b"x", 5).unwrap();
    let permit = bundles.admit(home()).unwrap();
    assert!(bundles.part(part.id, permit).await.is_err());
    assert_eq!(bundles.offered(), None);
}

#[tokio::test]
async fn strangers_are_admitted_a_few_at_a_time() {
    let bundles = Bench::new().open();
    let held: Vec<_> = (0..READINGS_MAX)
        .map(|_| bundles.admit(home()).unwrap())
        .collect();
    assert!(matches!(bundles.admit(home()), Err(Error::Busy)));
    drop(held);
    let refused = (0..1000).find_map(|_| bundles.admit(home()).err());
    assert!(matches!(refused, Some(Error::RateLimited { .. })));
}
