//! Values that are written as strings: which are well formed, and what to say of the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::tz::TimeZone;

use crate::calendar;
use crate::error::{Text, text};
use crate::model::{Endpoint, PermitTarget, PlanDuration, PortSpec, SiteId, WireguardKey};

/// Checks `value` against a `format` of the schema. `Err`: what to write instead. Unknown formats take anything.
pub(crate) fn check(format: &str, value: &str) -> Result<(), Text> {
    let (good, en, ja) = match format {
        "identifier" => (
            SiteId::new(value).is_ok(),
            "write 1 to 32 of a-z, 0-9, `-`, `_`, beginning with a letter",
            "英小文字で始まる 1〜32 文字（a-z、0-9、`-`、`_`）で書いてください",
        ),
        "ipv4" => (
            value.parse::<Ipv4Addr>().is_ok(),
            "write an IPv4 address without prefix length, as in 192.0.2.1",
            "192.0.2.1 のように、プレフィックス長のない IPv4 アドレスを書いてください",
        ),
        "ipv6" => (
            value.parse::<Ipv6Addr>().is_ok(),
            "write an IPv6 address without prefix length, as in 2001:db8::1",
            "2001:db8::1 のように、プレフィックス長のない IPv6 アドレスを書いてください",
        ),
        "ip" => (
            value.parse::<IpAddr>().is_ok(),
            "write an IP address without prefix length, as in 192.0.2.1 or 2001:db8::1",
            "192.0.2.1 や 2001:db8::1 のように、プレフィックス長のない IP アドレスを書いてください",
        ),
        "ipv4-prefix" => (
            value.parse::<Ipv4Net>().is_ok(),
            "write an IPv4 address with its prefix length, as in 10.20.1.1/24",
            "10.20.1.1/24 のように、IPv4 アドレスにプレフィックス長を付けて書いてください",
        ),
        "ipv6-prefix" => (
            value.parse::<Ipv6Net>().is_ok(),
            "write an IPv6 address with its prefix length, as in fd20:0:0:1::1/64",
            "fd20:0:0:1::1/64 のように、IPv6 アドレスにプレフィックス長を付けて書いてください",
        ),
        "prefix" => (
            value.parse::<IpNet>().is_ok(),
            "write a prefix, as in 10.50.0.0/16 or 2001:db8::/32",
            "10.50.0.0/16 や 2001:db8::/32 のようにプレフィックスを書いてください",
        ),
        "endpoint" => (
            value.parse::<Endpoint>().is_ok(),
            "write an address or a name, and a port, as in 198.51.100.20:51820, [2001:db8::20]:51820 or \
             hub.town.example:51820",
            "198.51.100.20:51820、[2001:db8::20]:51820、hub.town.example:51820 のように、アドレスか名前とポートを書いてください",
        ),
        "wireguard-key" => (
            value.parse::<WireguardKey>().is_ok(),
            "write the 44 characters that `wg pubkey` prints",
            "`wg pubkey` が表示する 44 文字を書いてください",
        ),
        "hostname" => (
            is_host_name(value),
            "write a full host name in lower case, without a dot at the end, as in affairs.school.example (names in \
             other scripts in their xn-- form)",
            "affairs.school.example のように、末尾にドットのない完全なホスト名を小文字で書いてください（日本語ドメインは xn-- の形で）",
        ),
        "plan-duration" => (
            value.parse::<PlanDuration>().is_ok(),
            "write a whole number and a unit: 200ms, 5s, 15min, 2h, 7d",
            "200ms、5s、15min、2h、7d のように、整数と単位を書いてください",
        ),
        "port" => (
            value.parse::<PortSpec>().is_ok(),
            "write tcp/443, udp/53 or a range such as udp/3478-3481 (1 to 65535, the smaller first)",
            "tcp/443、udp/53、または udp/3478-3481 のような範囲（1〜65535、小さい方が先）で書いてください",
        ),
        "permit-target" => (
            value.parse::<PermitTarget>().is_ok(),
            "write service:ID or zone:ID, as in service:affairs",
            "service:affairs のように、service:ID または zone:ID で書いてください",
        ),
        "date" => (
            calendar::date(value).is_some(),
            "write a day that exists, as in \"2029-03-31\"",
            "\"2029-03-31\" のように、実在する日付を書いてください",
        ),
        "time-of-day" => (
            calendar::time_of_day(value).is_some(),
            "write hours and minutes from 00:00 to 23:59, as in \"18:00\" (the end of a day is \"00:00\")",
            "\"18:00\" のように 00:00〜23:59 で書いてください（一日の終わりは \"00:00\"）",
        ),
        "local-date-time" => (
            calendar::local_date_time(value).is_some(),
            "write day and time, as in \"2026-08-01T18:00\"",
            "\"2026-08-01T18:00\" のように日付と時刻を書いてください",
        ),
        "time-zone" => (
            !value.is_empty() && TimeZone::get(value).is_ok(),
            "write an IANA time zone, as in Asia/Tokyo",
            "Asia/Tokyo のように IANA のタイムゾーン名を書いてください",
        ),
        _ => return Ok(()),
    };
    if good { Ok(()) } else { Err(text(en, ja)) }
}

/// RFC 1123 names of at least two labels whose last is not a number (that would be an address); lower case only, so
/// that one name has one spelling.
pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= 253 && name.contains('.') && name.split('.').all(label) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_takes_the_good_and_refuses_the_near_miss() {
        for (format, good, bad) in [
            ("identifier", "two-line", "Two"),
            ("ipv4", "192.0.2.1", "192.0.2.1/24"),
            ("ipv6", "2001:db8::1", "192.0.2.1"),
            ("ipv4-prefix", "10.0.0.1/24", "10.0.0.1"),
            ("ipv6-prefix", "fd00::1/64", "fd00::1/129"),
            ("prefix", "10.0.0.0/8", "10.0.0.0/33"),
            ("endpoint", "[2001:db8::1]:51820", "2001:db8::1"),
            ("endpoint", "192.0.2.1:1", "192.0.2.1:0"),
            ("endpoint", "hub.town.example:51820", "hub.town.example"),
            ("hostname", "a.example", "a.example."),
            ("hostname", "xn--wgv71a.example", "日本.example"),
            ("hostname", "a-b.example", "-a.example"),
            ("hostname", "a1.example", "Affairs.example"),
            ("hostname", "a.b.c.d", "192.0.2.1"),
            ("plan-duration", "15min", "15 min"),
            ("port", "udp/1-2", "udp/2-1"),
            ("permit-target", "zone:a", "a"),
            ("date", "2028-02-29", "2027-02-29"),
            ("time-of-day", "23:59", "24:00"),
            ("local-date-time", "2026-08-01T18:00", "2026-08-01 18:00"),
            ("time-zone", "Asia/Tokyo", "Asia/Tokio"),
            (
                "wireguard-key",
                "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=",
            ),
        ] {
            assert!(check(format, good).is_ok(), "{format}: {good}");
            assert!(check(format, bad).is_err(), "{format}: {bad}");
        }
    }
}
