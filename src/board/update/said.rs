//! What programs and tables of the system say, read: pure.

use std::net::Ipv4Addr;

/// The words of a program's failure that are passed on, in bytes.
const REASON_BYTES_MAX: usize = 300;

/// The neighbour's link-layer address is known: `ATF_COM` of arp(7).
const COMPLETE: u32 = 0x2;

/// The route leads through a gateway: `RTF_GATEWAY` of route(8).
const THROUGH_GATEWAY: u32 = 0x2;

/// The last line that a program said, without its own marks: that is why it failed.
pub(super) fn last_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let plain = |line: &str| {
        line.chars()
            .filter(|c| !c.is_control())
            .collect::<String>()
            .trim()
            .to_owned()
    };
    let mut lines = text.lines().map(plain).filter(|line| !line.is_empty());
    let mut last = lines.next_back().unwrap_or_else(|| "it said nothing".to_owned());
    last.truncate(last.floor_char_boundary(REASON_BYTES_MAX));
    last
}

/// How far RAUC is, of a line like ` 20% Checking bundle done.`
pub(super) fn percent(line: &str) -> Option<u8> {
    let (number, _) = line.trim_start().split_once('%')?;
    number.parse().ok().filter(|percent| *percent <= 100)
}

/// The default gateway, of `/proc/net/route`: columns of hexadecimal numbers in the machine's own order of bytes.
pub(super) fn gateway(table: &str) -> Option<Ipv4Addr> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let destination = fields.next()?;
        let gateway = u32::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        let is_default = destination == "00000000" && flags & THROUGH_GATEWAY != 0;
        is_default.then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

/// Whether a neighbour has answered, of `/proc/net/arp`.
pub(super) fn is_neighbour(table: &str, address: Ipv4Addr) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        let is_it = fields.next().and_then(|field| field.parse().ok()) == Some(address);
        let flags = fields.nth(1).and_then(|field| field.strip_prefix("0x"));
        let flags = flags.and_then(|field| u32::from_str_radix(field, 16).ok());
        is_it && flags.is_some_and(|flags| flags & COMPLETE != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_failure_is_its_last_line() {
        let said = b"rauc-Message: 09:34:31: Reading bundle\n\x1b[31mVerify error: certificate revoked\n\n";
        assert!(last_words(said).ends_with("Verify error: certificate revoked"));
        assert_eq!(last_words(b""), "it said nothing");
        assert!(last_words("☂".repeat(500).as_bytes()).len() <= REASON_BYTES_MAX);
    }

    #[test]
    fn progress_is_what_stands_before_the_percent_sign() {
        assert_eq!(percent(" 20% Checking bundle done."), Some(20));
        assert_eq!(percent("100% Installing done."), Some(100));
        for other in ["installing", "LastError: 5% of", "300% x", "-1% x", ""] {
            assert_eq!(percent(other), None, "{other}");
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_gateway_is_that_of_the_default_route_and_answers_where_the_table_has_its_address() {
        let route = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
            eth0\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\n\
            eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\n";
        let gateway = gateway(route).unwrap();
        assert_eq!(gateway, Ipv4Addr::new(10, 0, 2, 2));
        let head = "IP address       HW type     Flags       HW address            Mask     Device\n";
        let line = |flags| {
            format!(
                "{head}10.0.2.2         0x1         {flags}         52:55:0a:00:02:02     *        eth0\n"
            )
        };
        assert!(is_neighbour(&line("0x2"), gateway));
        assert!(!is_neighbour(&line("0x0"), gateway));
        assert!(!is_neighbour(head, gateway));
        assert_eq!(super::gateway("Iface\tDestination\n"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[ -~\n\t☂]{0,200}") {
            let _ = (last_words(text.as_bytes()), percent(&text), gateway(&text));
            let _ = is_neighbour(&text, Ipv4Addr::LOCALHOST);
        }
    }
}
