//! What every program of the benchmark shares: the same payload for the same index, and one line of JSON at the end.

use std::time::Duration;

/// Fills `block` with bytes no compressor can shrink, the same ones for the same `seed` (SplitMix64).
///
/// Cheap on purpose: the generator runs inside the measured time, on the cores of the program under test.
pub fn fill(block: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    for word in block.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..word.len()]);
    }
}

/// The id of a document: as random as what clients choose, no order that an index could like.
pub fn doc_id(number: u64) -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes, number);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A document of `size` bytes, as its id and its JSON; the member `n` is its number.
pub fn document(number: u64, size: usize) -> (String, String) {
    /// Bytes beside the text.
    const AROUND: usize = 40;
    let mut text = vec![0; size.saturating_sub(AROUND)];
    fill(&mut text, number);
    for byte in &mut text {
        *byte = b'a' + *byte % 26;
    }
    let text = String::from_utf8(text).expect("letters");
    (
        doc_id(number),
        format!("{{\"type\":\"note\",\"n\":{number},\"text\":\"{text}\"}}"),
    )
}

/// Prints what `scripts/bench` reads: one JSON object on one line.
pub fn report(program: &str, blobs: u64, size_bytes: u64, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    println!(
        "{}",
        serde_json::json!({
            "program": program,
            "blobs": blobs,
            "size_bytes": size_bytes,
            "seconds": seconds,
            "blobs_per_second": blobs as f64 / seconds,
            "mib_per_second": (blobs * size_bytes) as f64 / 1_048_576.0 / seconds,
        })
    );
}

/// Arguments of the form `--name value`, each looked up once.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// Takes the arguments of the process.
    pub fn of_process() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The value after `--name`, or none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|given| given == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    /// The number after `--name`, or `otherwise`.
    ///
    /// # Panics
    /// When what is given is not a number.
    pub fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.get(name).map_or(otherwise, |given| {
            given
                .parse()
                .unwrap_or_else(|_| panic!("{name} takes a number, not {given:?}"))
        })
    }

    /// The value after `--name`.
    ///
    /// # Panics
    /// When it is not given.
    pub fn required(&self, name: &str) -> &str {
        self.get(name).unwrap_or_else(|| panic!("{name} is required"))
    }
}
