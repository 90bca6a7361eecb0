//! What the hardware says of itself: heat, power, and the wear of its card.
//!
//! Attributes of the kernel's tree, as far as a board has them; what is not there is not known. Sources: kernel
//! documentation, ABI/testing/sysfs-class-thermal, hwmon/raspberrypi-hwmon and mmc/mmc-dev-attrs; the Raspberry Pi kernel's
//! `get_throttled` (bits as the firmware's mailbox has them); JEDEC JESD84-B51, 7.4.17 and 7.4.18, for `life_time` and
//! `pre_eol_info`. SD cards, other than soldered eMMC, tell nothing of their wear.

use std::fs;
use std::path::{Path, PathBuf};

use crate::node::{CardReserve, Hardware};

/// Devices of a kind that are looked at.
const DEVICES_MAX: usize = 32;

/// A sensor that says less or more is broken, in thousandths of a degree.
const HEAT_RANGE_MC: std::ops::RangeInclusive<i32> = -40_000..=150_000;

/// The bits of `get_throttled` that are about now; those above are about the time since the start.
const UNDER_VOLTAGE: u32 = 1;
const CAPPED: u32 = 1 << 1;
const THROTTLED: u32 = 1 << 2;

/// Where the Raspberry Pi's own kernel says how its firmware slows it.
const FIRMWARE: &str = "devices/platform/soc/soc:firmware/get_throttled";

/// Reads the sensors below `sys`.
pub(super) fn read(sys: &Path, title: &str) -> Hardware {
    let firmware = text(&sys.join(FIRMWARE)).and_then(|bits| u32::from_str_radix(&bits, 16).ok());
    let firmware = firmware.unwrap_or(0);
    let card = card(sys);
    Hardware {
        title: title.to_owned(),
        temperature_mc: temperature_mc(sys),
        is_throttled: is_slowed(sys) || firmware & (CAPPED | THROTTLED) != 0,
        is_under_voltage: is_under_voltage(sys) || firmware & UNDER_VOLTAGE != 0,
        card_used_percent: card.as_deref().and_then(used_percent),
        card_reserve: card.as_deref().and_then(reserve),
    }
}

/// The hottest zone.
fn temperature_mc(sys: &Path) -> Option<i32> {
    let zones = below(&sys.join("class/thermal"), "thermal_zone");
    let heats = zones
        .iter()
        .filter_map(|zone| text(&zone.join("temp"))?.parse().ok());
    heats.filter(|heat| HEAT_RANGE_MC.contains(heat)).max()
}

/// Whether the kernel slows the processor to cool it. A fan is no news.
fn is_slowed(sys: &Path) -> bool {
    let coolers = below(&sys.join("class/thermal"), "cooling_device");
    coolers.iter().any(|cooler| {
        let is_processor = text(&cooler.join("type")).is_some_and(|kind| kind.contains("cpufreq"));
        let state = text(&cooler.join("cur_state")).and_then(|state| state.parse::<u32>().ok());
        is_processor && state.is_some_and(|state| state > 0)
    })
}

fn is_under_voltage(sys: &Path) -> bool {
    let monitors = below(&sys.join("class/hwmon"), "hwmon");
    monitors.iter().any(|monitor| {
        text(&monitor.join("name")).is_some_and(|name| name == "rpi_volt")
            && text(&monitor.join("in0_lcrit_alarm")).is_some_and(|alarm| alarm == "1")
    })
}

/// The first card that tells of its wear.
fn card(sys: &Path) -> Option<PathBuf> {
    let disks = below(&sys.join("block"), "mmcblk");
    disks
        .into_iter()
        .map(|disk| disk.join("device"))
        .find(|device| device.join("life_time").exists())
}

/// `0x02 0x01`: tenths of the life of each kind of its cells, rounded up; 11 is more than all of it.
fn used_percent(device: &Path) -> Option<u8> {
    let both = text(&device.join("life_time"))?;
    let tenths = both.split_whitespace().filter_map(hexadecimal);
    // 0 is "not defined".
    let worst = tenths.filter(|tenths| (1..=11).contains(tenths)).max()?;
    Some(worst * 10)
}

fn reserve(device: &Path) -> Option<CardReserve> {
    match hexadecimal(&text(&device.join("pre_eol_info"))?)? {
        1 => Some(CardReserve::Good),
        2 => Some(CardReserve::Low),
        3 => Some(CardReserve::Gone),
        _ => None,
    }
}

fn hexadecimal(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn below(folder: &Path, start: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(start))
        })
        .take(DEVICES_MAX)
        .collect();
    found.sort();
    found
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, value) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{value}\n")).unwrap();
        }
        dir
    }

    fn nothing() -> Hardware {
        Hardware {
            title: "A board".to_owned(),
            temperature_mc: None,
            is_throttled: false,
            is_under_voltage: false,
            card_used_percent: None,
            card_reserve: None,
        }
    }

    fn told(files: &[(&str, &str)]) -> Hardware {
        read(tree(files).path(), "A board")
    }

    #[test]
    fn a_raspberry_pi_that_is_well_is_warm_and_nothing_else() {
        let well = told(&[
            ("class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("class/thermal/thermal_zone0/temp", "48312"),
            ("class/thermal/cooling_device0/type", "cpufreq-cpu0"),
            ("class/thermal/cooling_device0/cur_state", "0"),
            ("class/thermal/cooling_device1/type", "pwm-fan"),
            ("class/thermal/cooling_device1/cur_state", "3"),
            ("class/hwmon/hwmon1/name", "rpi_volt"),
            ("class/hwmon/hwmon1/in0_lcrit_alarm", "0"),
            ("block/mmcblk0/device/type", "SD"),
        ]);
        let expected = Hardware {
            temperature_mc: Some(48_312),
            ..nothing()
        };
        assert_eq!(well, expected);
    }

    #[test]
    fn heat_weak_power_and_a_worn_card_are_told() {
        let ill = told(&[
            ("class/thermal/thermal_zone0/temp", "61000"),
            ("class/thermal/thermal_zone1/temp", "86500"),
            ("class/thermal/cooling_device0/type", "cpufreq-cpu0"),
            ("class/thermal/cooling_device0/cur_state", "2"),
            ("class/hwmon/hwmon0/name", "rpi_volt"),
            ("class/hwmon/hwmon0/in0_lcrit_alarm", "1"),
            ("block/mmcblk1/device/life_time", "0x02 0x09"),
            ("block/mmcblk1/device/pre_eol_info", "0x02"),
        ]);
        let expected = Hardware {
            title: "A board".to_owned(),
            temperature_mc: Some(86_500),
            is_throttled: true,
            is_under_voltage: true,
            card_used_percent: Some(90),
            card_reserve: Some(CardReserve::Low),
        };
        assert_eq!(ill, expected);
    }

    #[test]
    fn the_firmware_of_a_raspberry_pi_is_heard_about_now_alone() {
        let path = FIRMWARE;
        let since_the_start = told(&[(path, "50000")]);
        assert_eq!(since_the_start, nothing());
        let now = told(&[(path, "50005")]);
        assert!(now.is_under_voltage && now.is_throttled);
    }

    #[test]
    fn what_makes_no_sense_is_not_known() {
        let odd = told(&[
            ("class/thermal/thermal_zone0/temp", "-273000"),
            ("class/thermal/thermal_zone1/temp", "hot"),
            ("block/mmcblk0/device/life_time", "0x00 0xff"),
            ("block/mmcblk0/device/pre_eol_info", "0x00"),
            (FIRMWARE, "throttled"),
        ]);
        assert_eq!(odd, nothing());
        assert_eq!(read(Path::new("/nonexistent/sys"), "A board"), nothing());
    }
}
