//! The lines of a Dockerfile: directives at its head, comments, continuation, here-documents.

use super::dockerfile::at;
use crate::error::Result;

/// An instruction with the line that it begins in.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub number: usize,
    pub word: String,
    pub rest: String,
    pub documents: Vec<Document>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub name: String,
    /// As it was written: `<<-"EOF"`.
    pub written: String,
    /// Variables count in it: its name is not in quotes.
    pub expands: bool,
    /// Tabs in front of its lines go.
    pub strips: bool,
    /// With the tabs, as a shell wants to read it.
    pub content: String,
}

impl Document {
    /// What it says to somebody who is no shell.
    pub fn plain(&self) -> String {
        if !self.strips {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// As it stands behind its line.
    pub fn whole(&self) -> String {
        format!("{}{}\n", self.content, self.name)
    }
}

/// Whose instructions may have here-documents.
const WITH_DOCUMENTS: [&str; 3] = ["RUN", "COPY", "ADD"];

/// Comments go, lines that end with the escape character are joined, and here-documents are taken to their line. Where
/// that character is not the backslash, the texts that are read by us come with backslashes all the same.
pub(super) fn lines(text: &str, name: &str) -> Result<Vec<Line>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape(text, name)?;
    let mut source = (1..).zip(text.lines());
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    while let Some((number, line)) = source.next() {
        let trimmed = line.trim();
        // An empty line within an instruction is passed over, as other builders do.
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (start, mut whole) = open.take().unwrap_or((number, String::new()));
        if let Some(part) = line.trim_end().strip_suffix(escape) {
            whole.push_str(part);
            open = Some((start, whole));
            continue;
        }
        whole.push_str(line.trim_end());
        let mut line = cut(start, &whole);
        line.documents = documents(&line);
        for document in &mut line.documents {
            take(document, &mut source).ok_or_else(|| {
                let message = format!("the here-document {:?} does not end", document.name);
                at(name, start, message).hint(format!("Write a line with {:?} alone.", document.name)).config()
            })?;
        }
        lines.push(line);
    }
    // An escape character on the last line continues into nothing.
    lines.extend(open.map(|(number, text)| cut(number, &text)));
    if escape != '\\' {
        for line in lines.iter_mut().filter(|line| !is_for_a_shell(line)) {
            line.rest = with_backslashes(&line.rest, escape);
        }
    }
    Ok(lines)
}

/// The escape character. Directives stand before everything else; of the others (`syntax`, `check`) none changes what
/// is read here.
fn escape(text: &str, name: &str) -> Result<char> {
    for (number, line) in (1..).zip(text.lines()) {
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|comment| comment.split_once('=')) else {
            break;
        };
        if !key.trim().bytes().all(|b| b.is_ascii_alphanumeric()) {
            break;
        }
        if key.trim().eq_ignore_ascii_case("escape") {
            return match value.trim() {
                "\\" => Ok('\\'),
                "`" => Ok('`'),
                other => Err(at(name, number, format!("{other:?} is no escape character"))
                    .hint("Write `# escape=\\` or `# escape=` with a backtick.")
                    .config()),
            };
        }
    }
    Ok('\\')
}

fn cut(number: usize, text: &str) -> Line {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    Line { number, word: word.to_uppercase(), rest: rest.trim().to_owned(), documents: Vec::new() }
}

/// Whose escapes are the shell's own affair, or JSON's.
fn is_for_a_shell(line: &Line) -> bool {
    matches!(line.word.as_str(), "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" | "HEALTHCHECK") || line.rest.starts_with('[')
}

fn with_backslashes(text: &str, escape: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut single = false;
    for c in text.chars() {
        single ^= c == '\'';
        match c {
            c if c == escape && !single => out.push('\\'),
            '\\' if !single => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out
}

/// The here-documents that a line begins: words that start with `<<`, outside quotes.
fn documents(line: &Line) -> Vec<Document> {
    if !WITH_DOCUMENTS.contains(&line.word.as_str()) || line.rest.starts_with('[') {
        return Vec::new();
    }
    let mut found = Vec::new();
    let (mut quote, mut escaped, mut start) = (None, false, true);
    for (at, c) in line.rest.char_indices() {
        let word = &line.rest[at..];
        if start && quote.is_none() {
            found.extend(document(word));
        }
        start = false;
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', None | Some('"')) => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None) => start = c.is_whitespace(),
            _ => {}
        }
    }
    found
}

/// `<<EOF`, `3<<-"EOF"`; what follows the name belongs to the shell.
fn document(word: &str) -> Option<Document> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strips, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let (quote, rest) = match rest.chars().next()? {
        quote @ ('"' | '\'') => (Some(quote), &rest[1..]),
        _ => (None, rest),
    };
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let length = rest.find(|c| quote.map_or(!is_name(c), |quote| c == quote)).unwrap_or(rest.len());
    let name = &rest[..length];
    let end = word.len() - rest.len() + length + quote.map_or(0, |_| 1);
    let written = word.get(..end)?.to_owned();
    (!name.is_empty()).then(|| Document {
        name: name.to_owned(),
        written,
        expands: quote.is_none(),
        strips,
        content: String::new(),
    })
}

/// Takes the lines up to the document's end; none where there is no end.
fn take<'a>(document: &mut Document, source: &mut impl Iterator<Item = (usize, &'a str)>) -> Option<()> {
    for (_, line) in source {
        let is_end = if document.strips { line.trim_start_matches('\t') } else { line };
        if is_end == document.name {
            return Some(());
        }
        document.content.push_str(line);
        document.content.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Line> {
        lines(text, "f").unwrap()
    }

    #[test]
    fn a_byte_order_mark_and_directives_are_no_instructions() {
        let read = of(
            "\u{feff}# syntax=docker/dockerfile:1\n# ESCAPE = `\nFROM a`\n  b\nENV A=`\"x C:\\x\nRUN dir C:\\ `\n  /b\n",
        );
        let rest: Vec<&str> = read.iter().map(|line| line.rest.as_str()).collect();
        assert_eq!(rest, ["a  b", "A=\\\"x C:\\\\x", "dir C:\\   /b"]);
        assert_eq!(of("# a comment\n# escape=`\nRUN a\\\nb\n")[0].rest, "ab");
        assert!(lines("# escape=x\nFROM a\n", "f").is_err());
    }

    #[test]
    fn here_documents_belong_to_their_line() {
        let read = of("RUN <<A cat <<-\"B C\" 3<<D >x\na\nA\n\tb\n\tB C\nd$X\nD\nRUN x\n");
        assert_eq!(read.len(), 2);
        let documents: Vec<(&str, &str, bool, String)> =
            read[0].documents.iter().map(|d| (&d.name[..], &d.written[..], d.expands, d.plain())).collect();
        let owned = |text: &str| text.to_owned();
        assert_eq!(
            documents,
            [
                ("A", "<<A", true, owned("a\n")),
                ("B C", "<<-\"B C\"", false, owned("b\n")),
                ("D", "3<<D", true, owned("d$X\n"))
            ]
        );
        for text in
            ["RUN cat <<<word\n", "RUN echo \"a <<B\"\n", "RUN echo $((1<<2))\n", "RUN echo 1 << 2\n", "CMD cat <<A\n"]
        {
            assert!(of(text)[0].documents.is_empty(), "{text}");
        }
        assert!(lines("RUN cat <<A\nb\n", "f").is_err());
    }
}
