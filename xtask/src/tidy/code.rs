//! Rust source without its comments and texts, so that a rule looks at code only.

/// The same source with every comment and the inside of every text blanked; lines stay where they are.
pub(super) fn without_comments_and_texts(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => text(rest),
            'r' | 'b' | 'c' if !code.ends_with(is_word) => prefixed_text(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// Whether the word stands in the code as a word of its own.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// A text from its quotation mark on.
fn text(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `b'…'`; 0 if it is a name that begins with such a letter.
fn prefixed_text(rest: &str) -> usize {
    let letters = rest.len() - rest.trim_start_matches(['r', 'b', 'c']).len();
    let after = &rest[letters..];
    let raw = rest[..letters].contains('r');
    let hashes = after.len() - after.trim_start_matches('#').len();
    if letters > 2 || (hashes > 0 && !raw) {
        return 0;
    }
    match after[hashes..].chars().next() {
        Some('"') if raw => {
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = letters + hashes + 1;
            rest[inside..].find(&close).map_or(rest.len(), |at| inside + at + close.len())
        }
        Some('"') => letters + text(after),
        Some('\'') if hashes == 0 => letters + character(after),
        Some(_) | None => 0,
    }
}

/// `'x'` or `'\n'`; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(0, |at| at + 4),
        Some((at, c)) if rest[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_texts_are_blanked_and_code_stays() {
        for (source, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"x \\\" y\") + 1", "f(        ) + 1"),
            ("r#\"a \" b\"# x", "           x"),
            ("b\"a\" br\"b\" x", "           x"),
            ("fn f<'a>(c: &'a str) { '\"' }", "fn f<'a>(c: &'a str) {     }"),
            ("'\\'' 'é' \"", "          "),
            ("bar(r, b)", "bar(r, b)"),
        ] {
            assert_eq!(without_comments_and_texts(source).trim_end(), code.trim_end(), "{source}");
        }
    }

    #[test]
    fn a_word_inside_another_is_not_that_word() {
        assert!(has_word("x = unsafe { f() }", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
    }
}
