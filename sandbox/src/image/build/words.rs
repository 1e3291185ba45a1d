//! Words of a Dockerfile: quotes, escapes and variables.

use std::collections::BTreeMap;

/// The values of variables at one place of a build.
pub(crate) type Variables = BTreeMap<String, String>;

/// Replaces `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}` (and both without the colon) by values; unknown ones
/// are empty. What stands in single quotes or behind a backslash stays. Quotes stay too.
pub(crate) fn expand(text: &str, variables: &Variables) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut single = false;
    let mut double = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '\\' if !single => {
                let next = after.chars().next();
                // Before a variable it has done its work; anywhere else it is `unquote` that sees to it.
                if next != Some('$') {
                    out.push('\\');
                }
                out.extend(next);
                rest = &after[next.map_or(0, char::len_utf8)..];
                continue;
            }
            '$' if !single => {
                let (value, length) = variable(after, variables)?;
                out.push_str(&value);
                rest = &after[length..];
                continue;
            }
            _ => {}
        }
        out.push(c);
        rest = after;
    }
    Ok(out)
}

/// The value of what stands behind a `$`, and how much of the text it is.
fn variable(text: &str, variables: &Variables) -> Result<(String, usize), String> {
    let name_length = |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let value = |name: &str| variables.get(name).cloned();
    let Some(inner) = text.strip_prefix('{') else {
        return Ok(match name_length(text) {
            0 => ("$".to_owned(), 0),
            length => (value(&text[..length]).unwrap_or_default(), length),
        });
    };
    let mut depth = 1;
    let end = inner.char_indices().find(|(at, c)| {
        match c {
            '{' if inner[..*at].ends_with('$') => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let (end, _) = end.ok_or_else(|| format!("${{{inner}: no closing brace"))?;
    let inside = &inner[..end];
    let (name, how) = inside.split_at(name_length(inside));
    if name.is_empty() {
        return Err(format!("${{{inside}}} names no variable"));
    }
    let set = value(name);
    let full = set.clone().filter(|value| !value.is_empty());
    let word = |at: usize| expand(&how[at..], variables);
    let value = match how {
        "" => set.unwrap_or_default(),
        _ if how.starts_with(":-") => full.map_or_else(|| word(2), Ok)?,
        _ if how.starts_with(":+") => full.map_or(Ok(String::new()), |_| word(2))?,
        _ if how.starts_with('-') => set.map_or_else(|| word(1), Ok)?,
        _ if how.starts_with('+') => set.map_or(Ok(String::new()), |_| word(1))?,
        _ => return Err(format!("${{{inside}}}: only ${{NAME}}, ${{NAME:-word}} and ${{NAME:+word}} are understood")),
    };
    Ok((value, 1 + end + 1))
}

/// Cuts a text into words at white space outside quotes, and takes quotes and escapes away.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => match chars.next() {
                Some(next) => {
                    let word = word.get_or_insert_default();
                    // In double quotes a backslash is one, unless what follows means something there.
                    if quote.is_some() && !matches!(next, '"' | '\\' | '$') {
                        word.push('\\');
                    }
                    word.push(next);
                }
                None => word.get_or_insert_default().push('\\'),
            },
            (c, Some(open)) if c == open => quote = None,
            (c @ ('"' | '\''), None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("a {quote} without its partner"));
    }
    words.extend(word);
    Ok(words)
}

/// `KEY=VALUE …`, or the old form `KEY VALUE` with everything behind the key as the value.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let words = split(text)?;
    match words.first() {
        None => return Err("names nothing".to_owned()),
        Some(first) if !first.contains('=') => {
            let value = text.trim_start()[first.len()..].trim();
            if value.is_empty() {
                return Err(format!("{first} has no value: write {first}=VALUE"));
            }
            return Ok(vec![(first.clone(), split(&value.replace(' ', "\\ "))?.concat())]);
        }
        Some(_) => {}
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{word:?} is not KEY=VALUE")),
    };
    words.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("A", "a"), ("EMPTY", ""), ("P", "/x y")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn variables_are_replaced_as_a_dockerfile_has_it() {
        for (text, expanded) in [
            ("$A-${A}", "a-a"),
            ("$AB${NONE}.", "."),
            ("${NONE:-d$A}", "da"),
            ("${EMPTY:-d}${EMPTY-d}", "d"),
            ("${A:+yes}${NONE:+yes}${EMPTY+set}", "yesset"),
            ("${NONE:-${A}}", "a"),
            ("\\$A '$A' \"$A\"", "$A '$A' \"a\""),
            ("100$ $$", "100$ $$"),
            ("a\\ b", "a\\ b"),
        ] {
            assert_eq!(expand(text, &variables()).unwrap(), expanded, "{text}");
        }
        for text in ["${A", "${}", "${A:?no}", "${A%x}"] {
            assert!(expand(text, &variables()).is_err(), "{text}");
        }
    }

    #[test]
    fn words_lose_their_quotes_and_keep_what_is_in_them() {
        assert_eq!(split(r#"a "b c" d\ e 'f"g' "" h"i"j"#).unwrap(), ["a", "b c", "d e", "f\"g", "", "hij"]);
        assert_eq!(split(r#""a\"b\n""#).unwrap(), [r#"a"b\n"#]);
        assert!(split("a \"b").is_err());
    }

    #[test]
    fn pairs_come_in_two_forms() {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert_eq!(pairs(r#"A=1 B="2 3" C=a=b"#).unwrap(), owned(&[("A", "1"), ("B", "2 3"), ("C", "a=b")]));
        assert_eq!(pairs("A one two").unwrap(), owned(&[("A", "one two")]));
        for text in ["", "A", "A=1 B", "=1"] {
            assert!(pairs(text).is_err(), "{text}");
        }
    }
}
