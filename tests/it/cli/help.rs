//! What the program says of itself: help with an example each, completions, manual pages.

use std::fs;

use super::Desk;

/// Every command, as `refuge --help` lists them.
fn commands(desk: &Desk) -> Vec<String> {
    let help = desk.run(["--help"]).done();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let desk = Desk::new();
    let commands = commands(&desk);
    let expected = [
        "serve",
        "put",
        "get",
        "stat",
        "ls",
        "rm",
        "backup",
        "restore",
        "snapshots",
        "diff",
        "verify",
        "prune",
        "check",
        "gc",
        "store",
        "db",
        "id",
        "claim",
        "token",
        "completions",
        "man",
    ];
    for name in expected {
        assert!(
            commands.iter().any(|command| command == name),
            "{name} is missing: {commands:?}"
        );
    }
    for name in &commands {
        let help = desk.run([name.as_str(), "--help"]).done();
        assert!(help.contains("Example:\n  "), "{name} has no example:\n{help}");
        assert!(help.contains(&format!("refuge {name}")), "{name}:\n{help}");
    }
    assert!(desk.run(["--help"]).done().contains("Exit codes:"));
    assert!(desk.run(["--version"]).done().starts_with("refuge "));
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.run(["completions", shell]).done();
        for name in commands(&desk) {
            assert!(script.contains(&name), "{shell} does not know {name}");
        }
    }
    desk.run(["man", "man1"]).done();
    for name in commands(&desk) {
        let page = fs::read_to_string(desk.path(&format!("man1/refuge-{name}.1"))).unwrap();
        assert!(page.contains("EXIT STATUS"), "{name}");
    }
    desk.run(["completions", "tcsh"]).refused(2, "tcsh");
}
