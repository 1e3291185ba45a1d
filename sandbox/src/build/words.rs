//! Words of a Dockerfile: quotes, escapes and variables.

use std::collections::BTreeMap;

use super::glob::fits;

/// What a text may grow to, and how deep `${NAME:-${...}}` may be: `ENV A=$A$A` in thirty lines would fill any memory. A
/// program takes no longer variable than 128 KiB.
const LONGEST: usize = 1 << 20;
const DEEPEST: usize = 64;
/// Every part of a value is compared with the pattern.
const LONGEST_CUT: usize = 1024;

/// The values of variables at one place of a build.
pub(crate) type Variables = BTreeMap<String, String>;

/// Replaces `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}`, `${NAME:?word}` (and the three without the colon),
/// `${NAME#pattern}`, `${NAME%pattern}` and `${NAME/pattern/text}` by values; unknown ones are empty. What stands in single quotes or behind a backslash stays. Quotes stay too.
pub(crate) fn expand(text: &str, variables: &Variables) -> Result<String, String> {
    replace(text, variables, true, 0)
}

/// The same in a text in which quotes mean nothing: a here-document.
pub(crate) fn expand_document(text: &str, variables: &Variables) -> Result<String, String> {
    replace(text, variables, false, 0)
}

fn replace(text: &str, variables: &Variables, quotes: bool, depth: usize) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut single = false;
    let mut double = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        match c {
            '\'' if quotes && !double => single = !single,
            '"' if quotes && !single => double = !double,
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
                let (value, length) = variable(after, variables, depth)?;
                if out.len() + value.len() > LONGEST {
                    return Err(format!("its variables make it longer than {LONGEST} bytes"));
                }
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
fn variable(text: &str, variables: &Variables, outer: usize) -> Result<(String, usize), String> {
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
    if outer == DEEPEST {
        return Err(format!("variables are nested in it more than {DEEPEST} deep"));
    }
    let inside = &inner[..end];
    let (name, how) = inside.split_at(name_length(inside));
    if name.is_empty() {
        return Err(format!("${{{inside}}} names no variable"));
    }
    let set = value(name);
    let full = set.clone().filter(|value| !value.is_empty());
    let word = |at: usize| replace(&how[at..], variables, true, outer + 1);
    let value = match how {
        "" => set.unwrap_or_default(),
        _ if how.starts_with(":-") => full.map_or_else(|| word(2), Ok)?,
        _ if how.starts_with(":+") => full.map_or(Ok(String::new()), |_| word(2))?,
        _ if how.starts_with('-') => set.map_or_else(|| word(1), Ok)?,
        _ if how.starts_with('+') => set.map_or(Ok(String::new()), |_| word(1))?,
        _ if how.starts_with(":?") => full.map_or_else(|| missing(name, &word(2)?), Ok)?,
        _ if how.starts_with('?') => set.map_or_else(|| missing(name, &word(1)?), Ok)?,
        _ if how.starts_with(['#', '%', '/']) => cut(&set.unwrap_or_default(), how, &word)?,
        _ => return Err(format!("${{{inside}}} is not understood: write ${{NAME}} or ${{NAME:-word}}")),
    };
    Ok((value, 1 + end + 1))
}

fn missing(name: &str, said: &str) -> Result<String, String> {
    Err(if said.is_empty() { format!("{name} is not set") } else { format!("{name}: {said}") })
}

/// `#pattern`, `##pattern`, `%pattern`, `%%pattern`, `/pattern/text` and `//pattern/text` on a value, as a shell has
/// them. `word`: what stands from a place on, with its variables replaced.
fn cut(value: &str, how: &str, word: &dyn Fn(usize) -> Result<String, String>) -> Result<String, String> {
    if value.len() > LONGEST_CUT {
        return Err(format!("a value of more than {LONGEST_CUT} bytes is not cut"));
    }
    let (sign, twice) = (how.as_bytes()[0], how.as_bytes().get(1) == how.as_bytes().first());
    let rest = word(if twice { 2 } else { 1 })?;
    let ends: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    let does = |pattern: &str, part: &str| fits(pattern.as_bytes(), part.as_bytes());
    let longest_last = |mut places: Vec<usize>, reverse: bool| {
        if reverse {
            places.reverse();
        }
        places
    };
    Ok(match sign {
        b'#' => {
            let cut = longest_last(ends, twice).into_iter().find(|end| does(&rest, &value[..*end]));
            value[cut.unwrap_or(0)..].to_owned()
        }
        b'%' => {
            let cut = longest_last(ends, !twice).into_iter().find(|start| does(&rest, &value[*start..]));
            value[..cut.unwrap_or(value.len())].to_owned()
        }
        _ => {
            let slash = (0..rest.len()).find(|at| rest.as_bytes()[*at] == b'/' && !rest[..*at].ends_with('\\'));
            let (pattern, text) = slash.map_or((&rest[..], ""), |at| (&rest[..at], &rest[at + 1..]));
            let (mut out, mut at, mut done) = (String::new(), 0, pattern.is_empty());
            while at < value.len() {
                let longest =
                    ends.iter().rev().take_while(|end| **end > at).find(|end| does(pattern, &value[at..**end]));
                match longest.filter(|_| !done) {
                    Some(end) => {
                        out.push_str(text);
                        (at, done) = (*end, !twice);
                    }
                    None => {
                        let end = ends[ends.partition_point(|end| *end <= at)];
                        out.push_str(&value[at..end]);
                        at = end;
                    }
                }
            }
            if out.len() > LONGEST {
                return Err(format!("its variables make it longer than {LONGEST} bytes"));
            }
            out
        }
    })
}

/// Cuts a text into words at white space outside quotes, and takes quotes and escapes away.
pub(crate) fn split(text: &str) -> Result<Vec<String>, String> {
    unquoted(text, true)
}

/// `cut`: white space ends a word. Otherwise the text is one word.
fn unquoted(text: &str, cut: bool) -> Result<Vec<String>, String> {
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
            (c, None) if cut && c.is_whitespace() => words.extend(word.take()),
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
            return Ok(vec![(first.clone(), unquoted(value, false)?.concat())]);
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
        for text in ["${A", "${}", "${NONE:?no}", "${EMPTY:?}", "${NONE?}", "${A@x}"] {
            assert!(expand(text, &variables()).is_err(), "{text}");
        }
        assert!(expand("${NONE:?say $A}", &variables()).unwrap_err().contains("NONE: say a"));
    }

    #[test]
    fn values_are_cut_as_a_shell_cuts_them() {
        let mut variables = variables();
        variables.insert("P".to_owned(), "/usr/lib/x.tar.gz".to_owned());
        variables.insert("E".to_owned(), ".gz".to_owned());
        for (text, cut) in [
            ("${P#*/}", "usr/lib/x.tar.gz"),
            ("${P##*/}", "x.tar.gz"),
            ("${P%.*}", "/usr/lib/x.tar"),
            ("${P%%.*}", "/usr/lib/x"),
            ("${P%$E}", "/usr/lib/x.tar"),
            ("${P#nothing}", "/usr/lib/x.tar.gz"),
            ("${P/\\//-}", "-usr/lib/x.tar.gz"),
            ("${P/lib/${A}}", "/usr/a/x.tar.gz"),
            ("${P//r/R}", "/usR/lib/x.taR.gz"),
            ("${P//[.]?}", "/usr/lib/xarz"),
            ("${P/./,}", "/usr/lib/x,tar.gz"),
            ("${NONE#x}", ""),
            ("${P//}", "/usr/lib/x.tar.gz"),
            ("${A:?no}${EMPTY?}", "a"),
        ] {
            assert_eq!(expand(text, &variables).unwrap(), cut, "{text}");
        }
        variables.insert("P".to_owned(), "x".repeat(LONGEST_CUT + 1));
        assert!(expand("${P%y}", &variables).unwrap_err().contains("is not cut"));
    }

    #[test]
    fn what_variables_make_of_a_text_is_bounded() {
        let mut variables = variables();
        let mut grown = Ok("x".repeat(64));
        let mut times = 0;
        while let Ok(value) = grown {
            // The control: up to the bound it does grow.
            assert_eq!(value.len(), 64 << times);
            variables.insert("A".to_owned(), value);
            grown = expand("$A${A}", &variables);
            times += 1;
        }
        assert!(grown.unwrap_err().contains("longer than 1048576 bytes"));
        assert_eq!(variables["A"].len(), LONGEST);
        let nested = |depth: usize| format!("{}deep{}", "${NONE:-".repeat(depth), "}".repeat(depth));
        assert_eq!(expand(&nested(DEEPEST), &variables).unwrap(), "deep");
        assert!(expand(&nested(DEEPEST + 1), &variables).unwrap_err().contains("nested"));
        assert!(expand(&nested(100_000), &variables).unwrap_err().contains("nested"));
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
        assert_eq!(pairs(r#"A "one  two" 't'\ u"#).unwrap(), owned(&[("A", "one  two t u")]));
        for text in ["", "A", "A=1 B", "=1"] {
            assert!(pairs(text).is_err(), "{text}");
        }
    }
}
