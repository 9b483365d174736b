//! Takes out of a text what must not leave this host. What goes into a bundle holds no secret by its making; this is the second look, for what people
//! and programs wrote where nobody expected it: a token in a reason, a password in an address that was traced.
//!
//! | is taken out                                      | is known by                                               |
//! |---------------------------------------------------|-----------------------------------------------------------|
//! | every shared secret, as text and as digits        | the database: literally                                   |
//! | every hash of a token, and the admin token        | the database, the data root: literally                    |
//! | any token of a Lastword server                    | its shape: `lw_…_…`                                       |
//! | user and password in an address                   | `scheme://USER:PASSWORD@host`                             |
//! | what an `Authorization` header says               | the word, also in front of `=` or in quotes; `Bearer …`   |
//! | values of things that are called secret           | `password=…`, `secret: …`, `token=…`, and the like        |

use serde_json::Value;
use std::collections::HashMap;

/// What stands where something was taken out.
pub(crate) const LEFT_OUT: &str = "(left out)";
/// Shorter literals are no secrets of ours, and would take out words.
const LITERAL_BYTES_MIN: usize = 16;
/// Behind one of these and `=` or `:` stands something that is nobody's business.
const SECRET_WORDS: [&str; 8] =
    ["password", "passwd", "pwd", "secret", "token", "apikey", "api_key", "authorization"];

/// What is known to be secret.
#[derive(Default)]
pub(crate) struct Scrub {
    /// By their first [`LITERAL_BYTES_MIN`] bytes, the longest first: there may be tens of thousands, and a text is gone through once.
    literals: HashMap<Vec<u8>, Vec<String>>,
}

impl Scrub {
    /// Takes these out wherever they stand, and what looks like a secret.
    pub(crate) fn new(secrets: impl IntoIterator<Item = String>) -> Scrub {
        let mut literals: HashMap<Vec<u8>, Vec<String>> = HashMap::new();
        for secret in secrets {
            if let Some(head) = secret.as_bytes().get(..LITERAL_BYTES_MIN) {
                literals.entry(head.to_vec()).or_default().push(secret);
            }
        }
        for alike in literals.values_mut() {
            alike.sort_by_key(|literal| std::cmp::Reverse(literal.len()));
        }
        Scrub { literals }
    }

    /// The text without secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        if self.literals.is_empty() { by_shape(text) } else { by_shape(&self.without_literals(text)) }
    }

    fn without_literals(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let (mut from, mut at) = (0, 0);
        while let Some(head) = text.as_bytes().get(at..at + LITERAL_BYTES_MIN) {
            let mut alike = self.literals.get(head).into_iter().flatten();
            let rest = &text.as_bytes()[at..];
            match alike.find(|literal| rest.starts_with(literal.as_bytes())) {
                Some(literal) => {
                    clean.push_str(&text[from..at]); // a text in a text begins where a character does
                    clean.push_str(LEFT_OUT);
                    at += literal.len();
                    from = at;
                }
                None => at += 1,
            }
        }
        clean.push_str(&text[from..]);
        clean
    }

    /// The same of every text in it. What is called a secret is left out whatever it is.
    pub(crate) fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(members) => members.values_mut().for_each(|member| self.value(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Leaves out the values of a configuration whose keys say that they are secret, or where one lies; addresses keep their host.
pub(crate) fn configuration(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                if is_secret_key(key) && !member.is_null() {
                    *member = LEFT_OUT.into();
                } else {
                    configuration(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(configuration),
        Value::String(text) => *text = by_shape(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["secret", "token", "passw", "pwd", "credential", "authorization", "key"]
        .iter()
        .any(|word| key.contains(word))
}

/// Takes out what looks like a secret: goes from word to word.
fn by_shape(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let word = length_while(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let cut = match word {
            0 if rest.starts_with("://") => user_info(rest),
            0 => None,
            _ => token(rest, word).or_else(|| scheme(rest, word)).or_else(|| named(rest, word)),
        };
        match cut {
            Some(Cut { keep, drop }) => {
                clean.push_str(&rest[..keep]);
                clean.push_str(LEFT_OUT);
                rest = &rest[keep + drop..];
            }
            None => {
                let passed = word.max(next.len_utf8());
                clean.push_str(&rest[..passed]);
                rest = &rest[passed..];
            }
        }
    }
    clean
}

/// So many bytes are kept, and so many behind them taken out.
struct Cut {
    keep: usize,
    drop: usize,
}

/// `://USER:PASSWORD@`: the user too, it may be all there is.
fn user_info(text: &str) -> Option<Cut> {
    let keep = "://".len();
    let authority: &str = text[keep..].split(['/', '?', '#', '"', '\'', ' ', '\n', '\\']).next()?;
    let drop = authority.rfind('@')?;
    (drop > 0).then_some(Cut { keep, drop })
}

/// `lw_ID_SECRET`; the id is no secret, and tells which token it is.
fn token(text: &str, word: usize) -> Option<Cut> {
    let keep = "lw_".len() + text[..word].strip_prefix("lw_")?.find('_')? + 1;
    (word > keep).then_some(Cut { keep, drop: word - keep })
}

/// `Bearer SOMETHING`, `Basic SOMETHING`, as in a header.
fn scheme(text: &str, word: usize) -> Option<Cut> {
    let is_scheme = ["bearer", "basic"].iter().any(|scheme| text[..word].eq_ignore_ascii_case(scheme));
    let blanks = length_while(&text[word..], |c| c == ' ');
    let drop = length_while(&text[word + blanks..], |c| !c.is_whitespace() && !"\"',;\\)…".contains(c));
    (is_scheme && blanks > 0 && drop >= SCHEME_BYTES_MIN).then_some(Cut { keep: word + blanks, drop })
}

/// Shorter words behind `basic` are words.
const SCHEME_BYTES_MIN: usize = 8;

/// `password=SOMETHING`, `"secret": "SOMETHING"`, `Authorization: SOMETHING`.
fn named(text: &str, word: usize) -> Option<Cut> {
    let name = text[..word].to_ascii_lowercase().replace('-', "_");
    let is_secret =
        SECRET_WORDS.iter().any(|secret| name == *secret || name.ends_with(&format!("_{secret}")));
    let after_name = word + length_while(&text[word..], |c| c == '"' || c == '\\');
    let sign = length_while(&text[after_name..], |c| c == ' ');
    let mut signs = text[after_name + sign..].chars();
    if !is_secret || !matches!(signs.next(), Some('=' | ':')) {
        return None;
    }
    let begin = after_name + sign + 1;
    let keep = begin + length_while(&text[begin..], |c| c == ' ' || c == '"' || c == '\\' || c == '\'');
    // In quotes, and in a header, it may have more than one word.
    let whole_line = name == "authorization" || text[..keep].ends_with(['"', '\'']);
    let drop = length_while(&text[keep..], |c| {
        !matches!(c, '"' | '\'' | '\\' | '\n' | '\r')
            && (whole_line || !(c.is_whitespace() || ",;&)}".contains(c)))
    });
    (drop > 0).then_some(Cut { keep, drop })
}

fn length_while(text: &str, holds: impl Fn(char) -> bool) -> usize {
    text.find(|c| !holds(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_looks_like_a_secret_is_taken_out_and_everything_around_it_stays() {
        for (text, clean) in [
            ("lw_0a1b2c3d_0123456789abcdef, twice", "lw_0a1b2c3d_(left out), twice"),
            ("at postgres://anna:geheim@db.example/x now", "at postgres://(left out)@db.example/x now"),
            ("https://token@h:1/a@b", "https://(left out)@h:1/a@b"),
            ("http://127.0.0.1:7410/a@b", "http://127.0.0.1:7410/a@b"),
            ("authorization: Bearer abcdefgh12345 more\nnext", "authorization: (left out)\nnext"),
            ("\"Authorization\":\"Basic YW5uYTpn\",\"x\":1", "\"Authorization\":\"(left out)\",\"x\":1"),
            ("sent bearer 0123456789abc; refused", "sent bearer (left out); refused"),
            ("PASSWORD=hush user=anna", "PASSWORD=(left out) user=anna"),
            ("db_password = \"hush hush\", x", "db_password = \"(left out)\", x"),
            ("?api-key=hush&page=2", "?api-key=(left out)&page=2"),
            ("the secret: hush", "the secret: (left out)"),
            ("a token was refused; the basic idea stays", "a token was refused; the basic idea stays"),
            ("tokens=3 slow_bearer Ünïcode ://", "tokens=3 slow_bearer Ünïcode ://"),
        ] {
            assert_eq!(Scrub::default().text(text), clean);
        }
    }

    #[test]
    fn known_secrets_are_taken_out_wherever_they_stand() {
        let scrub =
            Scrub::new(["0123456789abcdef-known".to_owned(), "0123456789abcdef".to_owned(), "id".to_owned()]);
        assert_eq!(scrub.text("xé0123456789abcdef-knowny idü"), "xé(left out)y idü");
        assert_eq!(scrub.text("0123456789abcdef0123456789abcdef"), "(left out)(left out)");
        let mut value = json!({"a": ["b 0123456789abcdef", 1], "id": null});
        scrub.value(&mut value);
        assert_eq!(value, json!({"a": ["b (left out)", 1], "id": null}));
    }

    #[test]
    fn a_configuration_keeps_its_addresses_and_loses_secrets_and_where_they_lie() {
        let mut config = json!({"database": {"url": "postgres://u:p@h/d"}, "tls": {"key_file": "/etc/x", "on": true},
            "smtp": [{"password": 7, "host": "h"}], "secret_file": null, "http": {"listen": "127.0.0.1:7410"}});
        configuration(&mut config);
        let expected = json!({"database": {"url": "postgres://(left out)@h/d"}, "tls": {"key_file": LEFT_OUT, "on": true},
            "smtp": [{"password": LEFT_OUT, "host": "h"}], "secret_file": null, "http": {"listen": "127.0.0.1:7410"}});
        assert_eq!(config, expected);
    }
}
