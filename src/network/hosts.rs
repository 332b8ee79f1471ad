//! The files by which the workload's resolver finds the pinned names and, at once, no other.
//!
//! glibc, Go and c-ares go by nsswitch.conf and ask no server; musl, and what speaks DNS itself,
//! go by resolv.conf.

use std::fmt::Write;
use std::net::IpAddr;

use super::rule;

/// The first of them is needed; another one that is not there is none that misleads.
pub const PATHS: [&str; 4] =
    ["/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/resolv.conf"];

/// What each of [`PATHS`] is to say. `nsswitch` is what /etc/nsswitch.conf says now.
pub fn texts(names: &[(String, Vec<IpAddr>)], own: &str, nsswitch: &[u8]) -> [Vec<u8>; 4] {
    [
        hosts(names, own).into_bytes(),
        from_the_file(nsswitch),
        HOST_CONF.to_vec(),
        RESOLV_CONF.to_vec(),
    ]
}

/// Every name with each of its addresses, in order. `own` is the host's own name, which many a
/// program looks up as it starts: on loopback, if it is no pinned one.
///
/// musl finds a name only as it is written here, in lower case, and takes 48 addresses at most.
fn hosts(names: &[(String, Vec<IpAddr>)], own: &str) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    let own = rule::name(own).ok().filter(|own| names.iter().all(|(name, _)| name != own));
    if let Some(own) = own.filter(|own| own != "localhost") {
        let _ = writeln!(text, "127.0.0.1 {own}");
    }
    for (name, addresses) in names.iter().filter(|(name, _)| name != "localhost") {
        for address in addresses {
            let _ = writeln!(text, "{address} {name}");
        }
    }
    text
}

/// glibc's gethostbyname would stop at the first line of a name.
const HOST_CONF: &[u8] = b"multi on\n";

/// No server. To most that means the one on loopback, which cannot be reached
/// unless a rule allows it; musl would wait 5 s for its answer, even if it could not ask.
/// `attempts:0` would make it divide by zero.
const RESOLV_CONF: &[u8] = b"options timeout:0 attempts:1\n";

/// The old nsswitch.conf, but with hosts from their file alone.
fn from_the_file(old: &[u8]) -> Vec<u8> {
    let database = |line: &[u8]| {
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        line[..end].trim_ascii().to_ascii_lowercase()
    };
    let mut text = Vec::with_capacity(old.len() + 16);
    for line in old.split_inclusive(|byte| *byte == b'\n').filter(|line| database(line) != b"hosts")
    {
        text.extend_from_slice(line);
    }
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(b"hosts: files\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(entries: &[(&str, &[&str])]) -> Vec<(String, Vec<IpAddr>)> {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        entries.iter().map(|(name, texts)| ((*name).into(), ips(texts))).collect()
    }

    #[test]
    fn each_name_has_a_line_for_each_address_in_order() {
        let names = names(&[
            ("b.example", &["192.0.2.2", "2001:db8:0:0::2", "192.0.2.1"]),
            ("localhost", &["127.0.0.1", "::1"]),
            ("app.localhost", &["127.0.0.1", "::1"]),
            ("a.example", &["192.0.2.2"]),
        ]);
        assert_eq!(
            hosts(&names, "box"),
            "127.0.0.1 localhost\n\
             ::1 localhost ip6-localhost ip6-loopback\n\
             127.0.0.1 box\n\
             192.0.2.2 b.example\n\
             2001:db8::2 b.example\n\
             192.0.2.1 b.example\n\
             127.0.0.1 app.localhost\n\
             ::1 app.localhost\n\
             192.0.2.2 a.example\n"
        );
    }

    #[test]
    fn the_hosts_own_name_takes_no_pin_and_makes_no_line_of_its_own() {
        let pinned = names(&[("a.example", &["192.0.2.1"])]);
        for own in ["A.EXAMPLE", "a.example", "localhost", "", "(none)", "evil\n192.0.2.9 x", "x y"]
        {
            assert_eq!(hosts(&pinned, own).lines().count(), 3, "{own:?}");
        }
        assert!(hosts(&pinned, "Box.example").contains("\n127.0.0.1 box.example\n"));
    }

    #[test]
    fn no_server_is_named_and_every_line_of_a_name_counts() {
        let text = |path| {
            let index = PATHS.iter().position(|known| *known == path).unwrap();
            String::from_utf8(texts(&[], "box", b"")[index].clone()).unwrap()
        };
        assert!(!text("/etc/resolv.conf").contains("nameserver"));
        assert_eq!(text("/etc/host.conf"), "multi on\n");
        assert_eq!(text("/etc/nsswitch.conf"), "hosts: files\n");
        assert!(text("/etc/hosts").contains("127.0.0.1 localhost\n"));
    }

    #[test]
    fn hosts_come_from_the_file_alone_and_the_rest_from_where_it_came() {
        for (old, new) in [
            ("", "hosts: files\n"),
            ("passwd: files systemd", "passwd: files systemd\nhosts: files\n"),
            (
                "# hosts: x\npasswd:files\n hosts :  files resolve [!UNAVAIL=return] dns\ngroup: files\n",
                "# hosts: x\npasswd:files\ngroup: files\nhosts: files\n",
            ),
            ("HOSTS: dns\nhosts: dns\n\nnetworks: files\n", "\nnetworks: files\nhosts: files\n"),
            ("hosts\n", "hosts: files\n"),
        ] {
            assert_eq!(String::from_utf8(from_the_file(old.as_bytes())).unwrap(), new, "{old:?}");
        }
        assert_eq!(from_the_file(b"\xff\xfe: x\n"), b"\xff\xfe: x\nhosts: files\n");
    }
}
