//! What this build asks of the processor it runs on.

use std::fs;

/// Entry of the auxiliary vector that holds the processor's features (getauxval(3)).
const AT_HWCAP: u32 = 16;

/// NEON among the features of 32-bit ARM (Linux, arch/arm/include/uapi/asm/hwcap.h).
const HWCAP_NEON: u32 = 1 << 12;

/// The instructions this build was made with and this processor lacks, in words for the user; `None` where it can run.
///
/// BLAKE3 chooses NEON when it is compiled for 32-bit ARM: without this check the first hash would end in a signal.
/// Must be asked before [`harden`](super::harden), which hides the vector from a process that is not root's.
pub fn lacking_instructions() -> Option<&'static str> {
    if !cfg!(all(target_arch = "arm", feature = "neon")) {
        return None;
    }
    // Where the system tells nothing, the build that was chosen is believed.
    let vector = fs::read("/proc/self/auxv").ok()?;
    (!has_neon(&vector)).then_some("NEON: take the build for arm-unknown-linux-musleabihf")
}

/// Whether the auxiliary vector of a 32-bit process, pairs of words that end with a zero, says that there is NEON.
fn has_neon(vector: &[u8]) -> bool {
    let words: Vec<_> = vector
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_ne_bytes(*word))
        .collect();
    words
        .as_chunks::<2>()
        .0
        .iter()
        .any(|&[entry, value]| entry == AT_HWCAP && value & HWCAP_NEON != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neon_is_read_from_the_features_entry_alone() {
        let vector = |words: &[u32]| {
            words
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect::<Vec<_>>()
        };
        assert!(has_neon(&vector(&[6, 4096, AT_HWCAP, HWCAP_NEON | 1, 0, 0])));
        assert!(!has_neon(&vector(&[6, HWCAP_NEON, AT_HWCAP, 1, 0, 0])));
        assert!(!has_neon(&vector(&[AT_HWCAP])));
        assert!(!has_neon(&[]));
    }
}
