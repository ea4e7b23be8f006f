//! The printed table and the picture.

use std::collections::BTreeSet;
use std::fs;

use super::{ALL, NAMES, Strategies, failures_and_outage, simulate};

const SMALL: [&str; 4] = ["--rotations", "1", "--tick", "10s"];

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, seed: &str, output: &str| {
        let svg = dir.path().join(name);
        let more = ["--seed", seed, "-o", output, "--svg", svg.to_str().unwrap()];
        let ended = simulate(&[&SMALL[..], &more].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        (ended.stdout, fs::read_to_string(svg).unwrap())
    };
    for output in ["text", "json"] {
        let first = run("first.svg", "7", output);
        assert_eq!(run("again.svg", "7", output), first);
        let other = run("other.svg", "8", output);
        assert!(other.0 != first.0 && other.1 != first.1);
    }
}

#[test]
fn the_table_fits_100_columns_and_agrees_with_the_json() {
    let ended = simulate(&SMALL);
    assert_eq!(ended.code, 0, "{ended:?}");
    // A run that takes long, as on a busy machine, reports its progress.
    assert!(ended.stderr.lines().all(|line| line.starts_with("simulating: ")), "{}", ended.stderr);
    let shown = &ended.stdout;
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    assert!(!shown.contains('\x1b'), "no colour in a pipe");
    let strategies = Strategies::of(&simulate(&[&SMALL[..], &["-o", "json"]].concat()));
    for name in NAMES {
        let strategy = strategies.named(name);
        // A long name has a line of its own.
        let is_long = shown.lines().any(|line| line == name);
        let is_first = |line: &str| line == name || line.starts_with(&format!("{name}  "));
        let first = shown.lines().position(is_first).unwrap_or_else(|| panic!("{shown}"));
        let rows = shown.lines().skip(first + usize::from(is_long));
        for (row, class) in rows.zip(ALL) {
            let class = &strategy[class];
            for number in ["handshakes", "failures"].map(|key| class[key].to_string()) {
                assert!(row.split_whitespace().any(|word| word == number), "{number}: {row}");
            }
        }
        let sum: u64 =
            ALL.iter().map(|class| strategy[class]["handshakes"].as_u64().unwrap()).sum();
        assert_eq!(strategy["handshakes"], sum);
        assert_eq!(strategy["failures"], failures_and_outage(strategy, &ALL).0);
    }
    // A rotation after two minutes, and twenty minutes more: six handshakes every ten seconds.
    assert_eq!(strategies.named("none")["handshakes"], 22 * 6 * 6);
}

#[test]
fn classes_without_pairs_are_not_shown() {
    let shown =
        simulate(&[&SMALL[..], &["--never-reload", "0", "--mutual", "100"]].concat()).stdout;
    assert!(shown.contains("mutual TLS"), "{shown}");
    assert!(!shown.contains("one-way TLS  ") && !shown.contains("never reloads  "), "{shown}");
}

#[test]
fn the_picture_is_self_contained_and_follows_the_colour_scheme() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.svg");
    let ended = simulate(&[&SMALL[..], &["--svg", path.to_str().unwrap()]].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    let svg = fs::read_to_string(path).unwrap();
    assert!(
        svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n")
    );
    assert!(svg.contains("prefers-color-scheme:dark") && svg.contains("font-family:sans-serif"));
    for foreign in ["<script", "<image", "href", "url(", "@font-face", "@import"] {
        assert!(!svg.contains(foreign), "{foreign}");
    }
    assert_eq!(svg.matches("http").count(), 1, "the namespace alone");
    // One lane for each strategy: both colours where the webhook is alone or absent, none with all
    // parts of ca-overlap. Below each a caption of its own.
    let lanes: Vec<&str> = svg.split("<tspan class=\"name\">").skip(1).collect();
    let colours =
        |lane: &str| ["reload", "never"].map(|c| lane.contains(&format!("class=\"{c}\" d=\"M52 ")));
    let mut captions = BTreeSet::new();
    for (lane, (name, expected)) in lanes.iter().zip(NAMES.iter().zip([
        [true, true],
        [true, true],
        [false, true],
        [false, false],
        [true, true],
        [false, false],
    ])) {
        assert!(lane.starts_with(&format!("{name}<")), "{name}");
        let (plot, below) = lane.split_once("<path class=\"grid\"").unwrap();
        assert_eq!(colours(plot), expected, "{name}");
        assert_eq!(plot.contains("no failure in 792 handshakes"), expected == [false; 2], "{name}");
        captions.insert(below.split_once("text-anchor=\"start\">").unwrap().1.split('<').next());
        assert!(*name == "none" || *name == "bundle" || below.contains("\"promoted\""), "{name}");
    }
    assert_eq!([lanes.len(), captions.len()], [NAMES.len(); 2]);
}

#[test]
fn a_picture_that_cannot_be_written_is_an_error() {
    let ended = simulate(&[&SMALL[..], &["--svg", "/nowhere/at/all.svg"]].concat());
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("cannot write /nowhere/at/all.svg: "), "{}", ended.stderr);
}

#[test]
fn wrong_flag_values_are_refused_by_name() {
    for (arguments, expected) in [
        (&["--peers", "1"][..], "--peers"),
        (&["--peers", "4", "--secrets", "5"], "--secrets: must not be more than --peers"),
        (&["--rotations", "0"], "--rotations"),
        (&["--never-reload", "101"], "--never-reload"),
        (&["--mutual", "some"], "--mutual"),
        (&["--interval", "10s"], "--interval: must be from 1m to 1d"),
        (&["--settle", "0s"], "--settle: must be from 1s to 1d"),
        (&["--sync-period", "0s"], "--sync-period: "),
        (&["--cache-ttl", "2d"], "--cache-ttl: "),
        (&["--startup", "0s"], "--startup: "),
        (&["--tick", "10ms"], "--tick: "),
        (&["--delay", "never"], "--delay"),
        (&["--keep", "9"], "--keep"),
        (&["--window", "soon"], "--window"),
        (&["--meetings", "0"], "--meetings"),
        (
            &["--interval", "1d", "--rotations", "100", "--tick", "1s"],
            "--tick: must be longer, or --meetings fewer: ",
        ),
        (&["-o", "yaml"], "--output"),
        (&["all"], "unexpected argument"),
    ] {
        let ended = simulate(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (64, ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn help_has_examples_and_fits() {
    let shown = simulate(&["--help"]).stdout;
    assert!(shown.contains("Examples:\n  ca-overlap simulate\n"), "{shown}");
    let flags = shown.lines().filter(|line| line.trim_start().starts_with("--")).count();
    assert!(flags > 12, "{flags}");
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
}
