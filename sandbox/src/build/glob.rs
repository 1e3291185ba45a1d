//! Patterns of names and paths, matched in time that grows with pattern times name: patterns come from a context that
//! somebody else may have written.

/// Whether a pattern fits the path, or a directory on the way to it. `**` stands for any number of directories.
pub(super) fn fits_beginning(pattern: &[Vec<u8>], path: &[&[u8]]) -> bool {
    // Which beginnings of the pattern fit the path so far.
    let mut fitting = vec![false; pattern.len() + 1];
    let leading = pattern.iter().take_while(|part| &part[..] == b"**").count();
    fitting[..=leading].fill(true);
    for name in path {
        let mut next = vec![false; pattern.len() + 1];
        for (place, part) in pattern.iter().enumerate() {
            let any = &part[..] == b"**";
            if fitting[place] {
                next[place + usize::from(!any)] |= any || fits(part, name);
            }
            // `**` stands for none as well.
            next[place + 1] |= any && next[place];
        }
        if next[pattern.len()] {
            return true;
        }
        fitting = next;
    }
    false
}

/// A name and a pattern with `*`, `?`, `[a-z]`, `[^a-z]` and `\` before what is to be taken as it is.
pub(super) fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut rest, mut left) = (pattern, name);
    // Behind the last `*`, and what of the name it has not taken yet. Only the last one has to be tried again.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', after)) = rest.split_first() {
            star = Some((after, left));
            rest = after;
            continue;
        }
        if rest.is_empty() && left.is_empty() {
            return true;
        }
        if let Some((byte, behind)) = left.split_first()
            && let Some(after) = one(rest, *byte)
        {
            (rest, left) = (after, behind);
            continue;
        }
        match star {
            Some((after, [_, fewer @ ..])) => {
                star = Some((after, fewer));
                (rest, left) = (after, fewer);
            }
            _ => return false,
        }
    }
}

/// What stands behind the first sign of the pattern, where that fits the byte.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (first, rest) = pattern.split_first()?;
    match first {
        b'?' => Some(rest),
        b'[' => match class(rest, byte) {
            Some((holds, rest)) => holds.then_some(rest),
            None => (byte == b'[').then_some(rest),
        },
        b'\\' if !rest.is_empty() => (rest[0] == byte).then(|| &rest[1..]),
        first => (*first == byte).then_some(rest),
    }
}

/// Whether a byte is in the class whose opening bracket was read, and what stands behind the closing one.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (not, mut rest) = match pattern.split_first() {
        Some((b'^' | b'!', rest)) => (true, rest),
        _ => (false, pattern),
    };
    let mut holds = false;
    let mut first = true;
    loop {
        let (low, after) = rest.split_first()?;
        if *low == b']' && !first {
            return Some((holds != not, after));
        }
        first = false;
        rest = after;
        let mut high = *low;
        if let [b'-', end, after @ ..] = rest
            && *end != b']'
        {
            (high, rest) = (*end, after);
        }
        holds |= (*low..=high).contains(&byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_a_shell_has_them() {
        for (pattern, name, does) in [
            ("*.rs", "a.rs", true),
            ("*.rs", "a.rc", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abYbc", true),
            ("*ab", "aab", true),
            ("*", "", true),
            ("**", "abc", true),
            ("?", "a", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[!a]", "b", true),
            ("[]]", "]", true),
            ("[", "[", true),
            ("*[", "a[", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), does, "{pattern} {name}");
        }
    }

    #[test]
    fn a_rule_fits_what_is_in_its_directory() {
        let does = |pattern: &str, path: &str| {
            let pattern: Vec<Vec<u8>> = pattern.split('/').map(|part| part.as_bytes().to_vec()).collect();
            let path: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            fits_beginning(&pattern, &path)
        };
        for (pattern, path, fits) in [
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("a", "b/a", false),
            ("**/a", "a", true),
            ("**/a", "b/c/a/d", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/x/y", false),
            ("a/**", "a", true),
            ("**", "x", true),
            ("**/**", "x", true),
            ("a/*/c", "a/b/c", true),
            ("a/b", "a", false),
        ] {
            assert_eq!(does(pattern, path), fits, "{pattern} {path}");
        }
    }

    /// Each of these takes longer than the universe is old where every way to fit is tried.
    #[test]
    fn no_pattern_takes_exponential_time() {
        let name = [b'a'; 255];
        assert!(!fits(&b"*a".repeat(2000), &name));
        assert!(!fits(&[&b"*a".repeat(120)[..], b"b"].concat(), &name));
        let path: Vec<&[u8]> = vec![b"a"; 2000];
        let pairs = std::iter::repeat_n([b"**".to_vec(), b"a".to_vec()], 500);
        let mut pattern: Vec<Vec<u8>> = pairs.flatten().collect();
        pattern.push(b"b".to_vec());
        assert!(!fits_beginning(&pattern, &path));
    }
}
