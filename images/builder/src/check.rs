//! What must be true of every image, whatever is in it. Each rule names what breaks it.

use std::collections::BTreeSet;

use crate::tree::{Node, Tree};

/// Sockets of these units are local: they are told from others by their path.
const UNITS: &str = "usr/lib/systemd/system";

/// Everything that is wrong, in words. Empty: nothing.
pub(crate) fn problems(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let paths: BTreeSet<&str> = tree.iter().map(|(path, _)| path).collect();
    for (path, node) in tree.iter() {
        match node {
            Node::File { mode, content } => {
                if mode & 0o6000 != 0 {
                    found
                        .push(format!("{path}: runs as somebody else than who starts it (setuid or setgid)"));
                }
                if mode & 0o022 != 0 {
                    found.push(format!("{path}: others than root may write it"));
                }
                if content.starts_with(b"#!") && mode & 0o111 != 0 {
                    found.push(format!("{path}: a script, and there is nothing that runs scripts"));
                }
                if content.starts_with(b"\x7fELF") && !path.ends_with(".ko") {
                    found.extend(missing_libraries(path, content, &paths));
                }
            }
            Node::Folder { mode } => {
                if mode & 0o022 != 0 && mode & 0o1000 == 0 {
                    found.push(format!("{path}: a folder that others than root may write"));
                }
            }
            Node::Link { target } => {
                if target.split('/').any(|part| part == "home") {
                    found.push(format!("{path}: a link into somebody's home"));
                }
            }
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        if SHELLS.contains(&name) && path.contains("bin/") {
            found.push(format!("{path}: a shell"));
        }
        if path.starts_with(UNITS) {
            found.extend(unit(path, node));
        }
    }
    found.extend(accounts(tree));
    // nft resolves protocols' names by it, and refuses a whole transaction without.
    if !String::from_utf8_lossy(tree.content("etc/protocols").unwrap_or_default()).contains("\nipv6-icmp ") {
        found.push("etc/protocols: does not name ipv6-icmp, which the agent's rules use".to_owned());
    }
    found
}

const SHELLS: [&str; 9] = ["sh", "bash", "dash", "busybox", "ash", "zsh", "login", "agetty", "sshd"];
/// Parts of names of units that let somebody in.
const DOORS: [&str; 6] = ["getty", "debug-shell", "emergency", "rescue", "sulogin", "ssh"];

fn unit(path: &str, node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    if DOORS.iter().any(|door| path.contains(door)) {
        found.push(format!("{path}: a unit that opens a console or a shell"));
    }
    let Node::File { content, .. } = node else { return found };
    for line in String::from_utf8_lossy(content).lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        // Everything else is a path or an abstract name on this machine.
        let local = value.starts_with(['/', '@', '%']) || value.is_empty();
        if key.trim().starts_with("Listen") && !local && !LISTENS_LOCALLY.contains(&key.trim()) {
            found.push(format!("{path}: listens on the network: {line}"));
        }
    }
    found
}

/// Kernel interfaces and files, not the network.
const LISTENS_LOCALLY: [&str; 5] =
    ["ListenNetlink", "ListenFIFO", "ListenSpecial", "ListenMessageQueue", "ListenUSBFunction"];

fn accounts(tree: &Tree) -> Vec<String> {
    let text = |path: &str| String::from_utf8_lossy(tree.content(path).unwrap_or_default()).into_owned();
    let mut found = Vec::new();
    let (passwd, shadow) = (text("etc/passwd"), text("etc/shadow"));
    if passwd.is_empty() || shadow.is_empty() {
        found.push("etc/passwd, etc/shadow: nobody is there".to_owned());
    }
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if fields.len() != 7 || fields[1] != "x" {
            found.push(format!("etc/passwd: {line}: a password, or none asked for"));
        }
        if !fields.last().is_some_and(|shell| shell.ends_with("/nologin")) {
            found.push(format!("etc/passwd: {line}: a log-in shell"));
        }
    }
    for line in shadow.lines() {
        if !line.split(':').nth(1).is_some_and(|password| password.starts_with('!')) {
            found.push(format!("etc/shadow: {line}: not locked"));
        }
    }
    found
}

/// Libraries that the program asks for and that are nowhere in the tree.
fn missing_libraries(path: &str, elf: &[u8], paths: &BTreeSet<&str>) -> Vec<String> {
    let own_folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let folders = [
        "usr/lib/aarch64-linux-gnu",
        "usr/lib",
        "usr/lib/aarch64-linux-gnu/systemd",
        "usr/lib/systemd",
        own_folder,
    ];
    needed(elf)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| !folders.iter().any(|folder| paths.contains(format!("{folder}/{name}").as_str())))
        .map(|name| format!("{path}: needs {name}, which is not in the image"))
        .collect()
}

/// `DT_NEEDED` of an ELF file (64 bits, little-endian). `None`: it is linked with nothing.
fn needed(elf: &[u8]) -> Option<Vec<String>> {
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let segments: Vec<(usize, usize, usize, usize)> = (0..count)
        .filter_map(|index| {
            let at = table + index * size;
            // Kind, offset, address, length in the file.
            Some((number(at, 4)?, number(at + 8, 8)?, number(at + 16, 8)?, number(at + 32, 8)?))
        })
        .collect();
    let (_, start, _, length) = *segments.iter().find(|(kind, ..)| *kind == 2)?;
    let entries: Vec<(usize, usize)> = (0..length / 16)
        .filter_map(|index| Some((number(start + index * 16, 8)?, number(start + index * 16 + 8, 8)?)))
        .collect();
    // DT_STRTAB is an address: DT_NEEDED's offsets are into what lies there.
    let (_, strings) = *entries.iter().find(|(tag, _)| *tag == 5)?;
    let (_, offset, address, _) = *segments
        .iter()
        .find(|(kind, _, address, size)| *kind == 1 && (*address..address + size).contains(&strings))?;
    let strings = strings - address + offset;
    let name = |at: usize| {
        let bytes = elf.get(strings + at..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    Some(entries.iter().filter(|(tag, _)| *tag == 1).filter_map(|(_, at)| name(*at)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Tree {
        let mut tree = Tree::default();
        tree.file("etc/passwd", 0o644, "root:x:0:0::/root:/usr/sbin/nologin\n");
        tree.file("etc/shadow", 0o600, "root:!*:1::::::\n");
        tree.file(
            "usr/lib/systemd/system/a.socket",
            0o644,
            "[Socket]\nListenStream=/run/a\nListenNetlink=audit 1\n",
        );
        tree.file("usr/bin/nft", 0o755, "no ELF");
        tree.file("etc/protocols", 0o644, "tcp 6 TCP\nipv6-icmp 58 IPv6-ICMP\n");
        tree.put("tmp", Node::Folder { mode: 0o1777 });
        tree
    }

    #[test]
    fn a_good_tree_has_no_problems() {
        assert_eq!(problems(&good()), Vec::<String>::new());
    }

    #[test]
    fn each_rule_is_broken_by_something() {
        type Break = fn(&mut Tree);
        let breaks: [(&str, Break); 12] = [
            ("ipv6-icmp", |tree| tree.file("etc/protocols", 0o644, "")),
            ("setuid", |tree| tree.file("usr/bin/mount", 0o4755, "")),
            ("may write it", |tree| tree.file("etc/x", 0o666, "")),
            ("others than root may write", |tree| tree.put("srv", Node::Folder { mode: 0o777 })),
            ("a script", |tree| tree.file("usr/bin/x", 0o755, "#!/bin/sh\n")),
            ("a shell", |tree| tree.file("usr/bin/dash", 0o755, "")),
            ("opens a console", |tree| tree.link("usr/lib/systemd/system/x.wants/getty@tty1.service", "y")),
            ("listens on the network", |tree| {
                tree.file("usr/lib/systemd/system/b.socket", 0o644, "[Socket]\nListenStream=22\n");
            }),
            ("a log-in shell", |tree| tree.file("etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n")),
            ("a password", |tree| tree.file("etc/passwd", 0o644, "root::0:0::/root:/usr/sbin/nologin\n")),
            ("not locked", |tree| tree.file("etc/shadow", 0o600, "root::1::::::\n")),
            ("nobody is there", |tree| {
                tree.remove("etc/shadow");
            }),
        ];
        for (words, break_it) in breaks {
            let mut tree = good();
            break_it(&mut tree);
            let found = problems(&tree);
            assert!(found.iter().any(|problem| problem.contains(words)), "{words}: {found:?}");
        }
    }

    /// This test's own program says what it needs.
    #[test]
    fn a_programs_libraries_are_read_and_missed() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(needed(&own).unwrap().iter().any(|name| name.starts_with("libc.so")));
        let mut tree = good();
        tree.file("usr/bin/own", 0o755, own);
        let found = problems(&tree);
        assert!(
            found.iter().any(|problem| problem.contains("libc.so") && problem.contains("not in the image")),
            "{found:?}"
        );
    }
}
