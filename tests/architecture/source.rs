//! One source file, reduced to what the rules look at.

/// A file below `src/` without its comments, strings and unit tests.
pub(crate) struct Source {
    /// The path below `src/`, with slashes.
    pub(crate) file: String,
    /// What is left of the text.
    pub(crate) code: String,
    /// The string literals.
    strings: Vec<String>,
}

impl Source {
    /// Reads a file's text.
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let tests = text.find("#[cfg(test)]\nmod tests");
        let (code, strings) = strip(&text[..tests.unwrap_or(text.len())]);
        Self { file: file.replace('\\', "/"), code, strings }
    }

    /// The part of the program: the directory below `src/`, or the file.
    pub(crate) fn area(&self) -> &str {
        self.file.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// All paths in the file, `use` trees unfolded, `self` and `super` resolved.
    pub(crate) fn paths(&self) -> Vec<String> {
        let tokens = tokens(&self.code);
        let mut paths = Vec::new();
        let mut rest = tokens.as_slice();
        while let Some((first, tail)) = rest.split_first() {
            rest = if first == "use" {
                unfold(tail, "", &mut paths)
            } else if is_word(first) {
                inline(rest, &mut paths)
            } else {
                tail
            };
        }
        paths.iter().map(|path| self.resolve(path)).collect()
    }

    /// Whether anything is formatted by `{:?}`, `?field` of a log line, or `dbg!`.
    pub(crate) fn prints_debug(&self) -> bool {
        let formats =
            self.strings.iter().any(|string| string.contains(":?}") || string.contains("#?}"));
        let tokens = tokens(&self.code);
        let fields = tokens.windows(3).any(|window| {
            matches!(window[0].as_str(), "(" | ",")
                && window[1] == "?"
                && window[2].starts_with(char::is_lowercase)
        });
        formats || fields || tokens.windows(2).any(|window| window == ["dbg", "!"])
    }

    fn resolve(&self, path: &str) -> String {
        let stem = self.file.trim_end_matches(".rs");
        let mut module: Vec<&str> =
            stem.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).collect();
        let mut rest = path;
        if !(rest.starts_with("super::") || rest.starts_with("self::")) {
            return rest.to_owned();
        }
        while let Some((first @ ("self" | "super"), tail)) = rest.split_once("::") {
            if first == "super" {
                module.pop();
            }
            rest = tail;
        }
        format!("{}::{rest}", [&["crate"], module.as_slice()].concat().join("::"))
    }
}

/// Unfolds one `use` tree up to its `;`, `,` or `}`; what follows is returned.
fn unfold<'a>(mut rest: &'a [String], prefix: &str, paths: &mut Vec<String>) -> &'a [String] {
    let mut path = prefix.to_owned();
    while let Some((token, tail)) = rest.split_first() {
        match token.as_str() {
            "{" => {
                rest = tail;
                loop {
                    rest = unfold(rest, &path, paths);
                    match rest.split_first() {
                        Some((token, tail)) if token == "," => rest = tail,
                        Some((token, tail)) if token == "}" => return tail,
                        _ => return rest,
                    }
                }
            }
            ";" | "," | "}" => break,
            "as" => rest = tail.get(1..).unwrap_or_default(),
            "::" if path.is_empty() => rest = tail,
            part => {
                path.push_str(part);
                rest = tail;
            }
        }
    }
    if path != prefix {
        paths.push(path);
    }
    rest
}

/// Takes one path of the form `a::b::c`; what follows is returned.
fn inline<'a>(tokens: &'a [String], paths: &mut Vec<String>) -> &'a [String] {
    let mut path = tokens[0].clone();
    let mut rest = &tokens[1..];
    while let [separator, part, tail @ ..] = rest {
        if separator != "::" || !is_word(part) {
            break;
        }
        path.push_str("::");
        path.push_str(part);
        rest = tail;
    }
    if path.contains("::") {
        paths.push(path);
    }
    rest
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut joins = false;
    for c in code.chars() {
        let word = c.is_alphanumeric() || c == '_';
        match tokens.last_mut() {
            Some(last)
                if joins && word && last.ends_with(|l: char| l.is_alphanumeric() || l == '_') =>
            {
                last.push(c);
            }
            Some(last) if joins && c == ':' && last == ":" => last.push(c),
            _ if c.is_whitespace() => {}
            _ => tokens.push(c.to_string()),
        }
        joins = !c.is_whitespace();
    }
    tokens
}

/// Splits a text into code without comments and strings, and the strings.
fn strip(text: &str) -> (String, Vec<String>) {
    let mut code = String::with_capacity(text.len());
    let mut strings = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let literal = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_length(rest)
        } else if c == '"' {
            string_length(rest)
        } else if c == 'r' && !code.ends_with(|l: char| l.is_alphanumeric() || l == '_') {
            raw_string_length(rest)
        } else if c == '\'' {
            char_length(rest)
        } else {
            0
        };
        if literal == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        if c == '"' || c == 'r' {
            strings.push(rest[..literal].to_owned());
        }
        code.push(' ');
        rest = &rest[literal..];
    }
    (code, strings)
}

/// The length of a block comment; they nest.
fn comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a raw string, 0 where there is none.
fn raw_string_length(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

/// The length of a character literal, 0 for a lifetime.
fn char_length(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            text[from..].find('\'').map_or(0, |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}
