//! The arrows of `docs/design.md`: which room of `src/` may use which, and no two files each other.
//! It reads the `use` lines that rustfmt writes; unit tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const PURE: &str = "kube:: k8s_openapi tokio std::fs std::io std::net std::env std::process tracing \
    prometheus clap anyhow SystemTime Instant ::now() :?}";
/// A room, the rooms that it may use, and words that must not occur in it (a spawned task has no owner).
const ROOMS: &[(&str, &str, &str)] = &[
    ("names", "", PURE),
    ("log", "", ""),
    ("metrics", "", ""),
    ("x509", "", PURE),
    ("overlap", "names x509", PURE),
    ("server", "log metrics names", "kube:: anyhow :?}"),
    ("kubernetes", "names overlap x509", "anyhow"),
    ("admission", "log metrics names overlap x509", "kube:: rustls anyhow :?}"),
    ("serving_cert", "kubernetes log metrics names server x509", "anyhow tokio::spawn"),
    ("keeper", "kubernetes log metrics names overlap x509", "anyhow tokio::spawn"),
    ("tools", "admission kubernetes log names overlap server x509", ""),
    ("run", "admission keeper kubernetes log metrics overlap server serving_cert", "tokio::spawn"),
    ("cli", "admission keeper log names overlap run server serving_cert tools", "kube::"),
];

#[test]
fn every_room_uses_only_those_below_it_and_no_two_files_use_each_other() {
    let mut files = BTreeMap::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read(&src, &src, &mut files);
    let (mut arrows, mut wrong) = (BTreeSet::new(), Vec::new());
    for (module, text) in &files {
        let room = module.split("::").next().unwrap();
        let rule = ROOMS.iter().find(|(name, ..)| *name == room);
        let (_, below, words) = rule.unwrap_or_else(|| panic!("{module}: {room} is no room"));
        let words = words.split_whitespace().filter(|word| text.contains(word));
        wrong.extend(words.map(|word| format!("{module} holds {word}")));
        for line in text.lines() {
            let Some((_, mut path)) = line.trim_start().split_once("use ") else { continue };
            let mut base = module.as_str();
            while let Some(rest) = path.strip_prefix("super::") {
                (path, base) = (rest, base.rsplit_once("::").map_or("", |(parent, _)| parent));
            }
            let path = path.split(['{', ';']).next().unwrap().trim_end_matches(':');
            let absolute = path.strip_prefix("crate::").map(str::to_owned);
            let relative = || (base != module).then(|| format!("{base}::{path}"));
            let Some(path) = absolute.or_else(relative) else { continue };
            let used = path.split(':').next().unwrap();
            if used != room && !below.split(' ').any(|name| name == used) {
                wrong.push(format!("{module} uses {used}"));
            }
            let is_in = |file: &&String| format!("{path}::").starts_with(&format!("{file}::"));
            if let Some(file) = files.keys().filter(is_in).max_by_key(|file| file.len()) {
                arrows.insert((module.clone(), file.clone()));
            }
        }
    }
    let is_circle = |a: &String, b: &String| {
        a < b && !b.starts_with(&format!("{a}::")) && arrows.contains(&(b.clone(), a.clone()))
    };
    let circles = arrows.iter().filter(|(a, b)| is_circle(a, b));
    wrong.extend(circles.map(|(a, b)| format!("{a} and {b} use each other")));
    assert!(wrong.is_empty() && arrows.len() > 200, "{}", wrong.join("\n"));
}

fn read(directory: &Path, src: &Path, files: &mut BTreeMap<String, String>) {
    for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let module = path.strip_prefix(src).unwrap().with_extension("");
        let module = module.to_string_lossy().replace('/', "::").replace("::mod", "");
        if path.is_dir() {
            read(&path, src, files);
        } else if !["lib", "main"].contains(&module.as_str()) && !module.ends_with("tests") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
            let code = code.filter(|line| !line.trim_start().starts_with("//"));
            files.insert(module, code.collect::<Vec<_>>().join("\n"));
        }
    }
}
