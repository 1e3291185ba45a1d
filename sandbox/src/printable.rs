//! What programs, images and archives say, made fit for a terminal. A name may hold an escape sequence that changes the
//! screen, a line break that forges a line of ours, or a control that turns the order of letters around.

use std::fmt::Write;

/// A longer name or message is cut. No path that a program can use is longer.
const MOST: usize = 4096;

/// A name for people to read, on one line: control characters, what changes the direction of text or cannot be seen,
/// and what is not UTF-8 stand as escapes (`\n`, `\u{1b}`, `\xff`), a backslash is doubled, and of more than 4,096 bytes
/// the middle is left out.
///
/// ```
/// assert_eq!(sandcell::printable("a\x1b[2J\nb\\"), r"a\u{1b}[2J\nb\\");
/// assert_eq!(sandcell::printable(b"\xffna\xc3\xafve"), r"\xffnaïve");
/// ```
pub fn printable(name: impl AsRef<[u8]>) -> String {
    escaped(name.as_ref(), true)
}

/// The same for a sentence, in which a backslash may be an escape already.
pub(crate) fn sentence(text: &str) -> String {
    escaped(text.as_bytes(), false)
}

/// The same for text of several lines, such as the end of a program's output: the lines stay, each behind `indent`, so
/// that none looks like one of ours.
pub fn printable_lines(text: &str, indent: &str) -> String {
    let lines = text.lines().map(|line| escaped(line.as_bytes(), false));
    lines.collect::<Vec<_>>().join(&format!("\n{indent}"))
}

/// A JSON text that means the same and holds nothing that a terminal would act on: such characters can only be in
/// strings, where they may be written as `\u001b`.
pub fn printable_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // The line breaks between values are the only control characters outside strings.
        if is_harmless(c) || c == '\n' {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// Of what is too long, the beginning and the end: a path ends with what it is about, a message with its reason.
fn escaped(bytes: &[u8], backslash: bool) -> String {
    if bytes.len() <= MOST {
        return escaped_whole(bytes, backslash);
    }
    let inner = |byte: &u8| byte & 0xc0 == 0x80;
    let (mut end, mut start) = (MOST / 2, bytes.len() - MOST / 2);
    while end > 0 && inner(&bytes[end]) {
        end -= 1;
    }
    while bytes.get(start).is_some_and(inner) {
        start += 1;
    }
    escaped_whole(&bytes[..end], backslash) + "…" + &escaped_whole(&bytes[start..], backslash)
}

fn escaped_whole(bytes: &[u8], backslash: bool) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' if backslash => out.push_str("\\\\"),
                c if is_harmless(c) => out.push(c),
                c => out.extend(c.escape_default()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Whether a terminal shows the character where it stands and does nothing else. The standard library knows which
/// characters can be printed; the letter before it keeps accents from being escaped.
fn is_harmless(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c => format!("a{c}").escape_debug().nth(2).is_none() && !c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_gets_through() {
        let hostile = "\x1b]0;title\x07\r\n\t\x08\x7f\u{9b}31m\u{85}\u{202e}\u{2066}\u{200b}\u{2028}\u{feff}\u{e0041}";
        let every = (0..0x11_0000).filter_map(char::from_u32).filter(|c| c.is_control()).collect::<String>();
        for text in [hostile, &every] {
            for shown in [printable(text), sentence(text), printable_json(text).replace('\n', "")] {
                let bad: Vec<char> = shown.chars().filter(|c| !(' '..='~').contains(c)).collect();
                assert!(bad.is_empty(), "{bad:?} in {shown}");
            }
        }
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for name in ["a b", "naïve", "e\u{301}", "日本語", "עברית", "\"quoted\"", "🦀", "a'b$(c)"] {
            assert_eq!(printable(name), name);
            assert_eq!(sentence(name), name);
        }
        assert_eq!(sentence(r"\n"), r"\n");
        assert_eq!(printable(r"\n"), r"\\n");
    }

    #[test]
    fn a_long_name_is_cut_and_bytes_are_escaped() {
        assert_eq!(printable([0xff, b'a', 0xc3]), r"\xffa\xc3");
        let cut = printable([&vec![b'x'; 1 << 20][..], b"end"].concat());
        assert!(cut.chars().count() == MOST + 1 && cut.contains('…') && cut.ends_with("end"));
        assert_eq!(printable("é".repeat(5000)).replace(['é', '…'], ""), "");
        assert!(printable(vec![0xff; 1 << 20]).len() < 5 * MOST);
    }

    #[test]
    fn json_means_the_same() {
        #[cfg(feature = "json")]
        {
            let value = serde_json::json!({"a\u{202e}": "\u{9b}2J\u{e0041}\n", "b": ["é", 1]});
            let text = printable_json(&serde_json::to_string_pretty(&value).unwrap());
            assert!(text.contains("\\u202e") && text.contains("\\u009b2J"), "{text}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn lines_of_a_program_do_not_look_like_ours() {
        assert_eq!(printable_lines("a\nsandcell: b\x1b[A", "    "), "a\n    sandcell: b\\u{1b}[A");
    }
}
