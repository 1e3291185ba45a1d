//! The lines of /proc/PID/uid_map and gid_map: user_namespaces(7).

use std::fmt;

use crate::ids::ranges::Ranges;

/// `count` ids from `inside` on are `host …` in the namespace above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapLine {
    pub inside: u32,
    pub host: u32,
    pub count: u32,
}

/// A map, as it is written to the kernel in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMap(Vec<MapLine>);

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|l| writeln!(f, "{} {} {}", l.inside, l.host, l.count))
    }
}

impl IdMap {
    pub(crate) fn one(inside: u32, host: u32) -> IdMap {
        IdMap(vec![MapLine { inside, host, count: 1 }])
    }

    /// Every id of the set and `own` stand for themselves.
    pub(crate) fn identity(own: u32, ids: &Ranges) -> IdMap {
        let ranges =
            ids.iter().map(|r| MapLine { inside: r.start as u32, host: r.start as u32, count: r.len() as u32 });
        IdMap(std::iter::once(MapLine { inside: own, host: own, count: 1 }).chain(ranges).collect())
    }

    /// `count` ids, 0 and up, are the slice from `host` on; `id` is among them, if need be in place of the last one.
    pub(crate) fn slice(id: u32, host: u32, count: u32) -> IdMap {
        if id < count {
            return IdMap(vec![MapLine { inside: 0, host, count }]);
        }
        let below = MapLine { inside: 0, host, count: count - 1 };
        let own = MapLine { inside: id, host: host + (count - 1), count: 1 };
        IdMap([below, own].into_iter().filter(|line| line.count > 0).collect())
    }

    /// As `slice` with `own` in the place of `id`: the slice's id that would stand there stays unused.
    pub(crate) fn slice_around(id: u32, own: u32, host: u32, count: u32) -> IdMap {
        let hole = id.min(count - 1);
        let below = MapLine { inside: 0, host, count: hole };
        let own = MapLine { inside: id, host: own, count: 1 };
        // Where `id` lies above the slice, the last one gave up its place for it.
        let above = if id < count {
            MapLine { inside: id + 1, host: host + hole + 1, count: count - hole - 1 }
        } else {
            MapLine { inside: 0, host, count: 0 }
        };
        IdMap([below, own, above].into_iter().filter(|line| line.count > 0).collect())
    }

    /// 0 is `own`, and 1 and up are the slice from `host + 1` on; `id` is among them, if need be in place of the last.
    #[cfg(feature = "image")]
    pub(crate) fn below_own(id: u32, own: u32, host: u32, count: u32) -> IdMap {
        let above = if id < count { count - 1 } else { count - 2 };
        let mut lines = vec![MapLine { inside: 0, host: own, count: 1 }];
        lines.push(MapLine { inside: 1, host: host + 1, count: above });
        if id >= count {
            lines.push(MapLine { inside: id, host: host + above + 1, count: 1 });
        }
        IdMap(lines.into_iter().filter(|line| line.count > 0).collect())
    }

    /// The ids that are mapped stand for themselves: the map of a namespace below.
    pub(crate) fn inside(&self) -> IdMap {
        IdMap(self.0.iter().map(|l| MapLine { host: l.inside, ..*l }).collect())
    }

    pub(crate) fn lines(&self) -> &[MapLine] {
        &self.0
    }

    /// Whether some id is root above.
    pub(crate) fn has_root(&self) -> bool {
        self.0.iter().any(|line| line.host == 0 && line.count > 0)
    }

    /// As it is, but that `a` stands for what `b` does and the other way round.
    pub(crate) fn swapped(&self, a: u32, b: u32) -> IdMap {
        if a == b {
            return self.clone();
        }
        let mut lines = Vec::new();
        for line in &self.0 {
            let mut from = line.inside;
            let end = line.inside + (line.count - 1);
            let mut points: Vec<u32> = [a, b].into_iter().filter(|id| (line.inside..=end).contains(id)).collect();
            points.sort_unstable();
            for point in points {
                lines.push(MapLine { inside: from, host: line.host + (from - line.inside), count: point - from });
                from = point + 1;
            }
            let count = (end + 1).saturating_sub(from);
            lines.push(MapLine { inside: from, host: line.host + (from - line.inside), count });
        }
        for (id, other) in [(a, b), (b, a)] {
            lines.extend(self.host(other).map(|host| MapLine { inside: id, host, count: 1 }));
        }
        lines.retain(|line| line.count > 0);
        IdMap(lines)
    }

    /// The ids above stand for themselves, but that `own` stands for `host`: for files of the caller's among the sandbox's.
    pub(crate) fn on_host_but(&self, own: u32, host: u32) -> IdMap {
        let same = self.0.iter().map(|l| MapLine { inside: l.host, ..*l }).collect();
        // In place of `host`, which nobody is twice.
        let mut lines = IdMap(same).swapped(host, u32::MAX).0;
        lines.retain(|line| line.inside != u32::MAX);
        lines.push(MapLine { inside: own, host, count: 1 });
        IdMap(lines)
    }

    /// Whether there is no other than this one above.
    pub(crate) fn is_only(&self, host: u32) -> bool {
        self.0.iter().all(|line| (line.host, line.count) == (host, 1))
    }

    /// How many ids there are.
    pub(crate) fn total(&self) -> u32 {
        self.0.iter().map(|line| line.count).fold(0, u32::saturating_add)
    }

    /// Whether all ids stand for themselves.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.iter().all(|line| line.inside == line.host)
    }

    /// What `host` is inside.
    pub(crate) fn inside_of(&self, host: u32) -> Option<u32> {
        let line = self.0.iter().find(|l| host >= l.host && host - l.host < l.count)?;
        Some(line.inside + (host - line.host))
    }

    /// From lines as /proc/PID/uid_map has them; `None` where one is no such line.
    pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Option<IdMap> {
        let line = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            let line = MapLine { inside: next()?, host: next()?, count: next()? };
            (numbers.next().is_none() && line.host.checked_add(line.count).is_some()).then_some(line)
        };
        lines.map(line).collect::<Option<Vec<_>>>().map(IdMap)
    }

    /// What `inside` is above.
    pub(crate) fn host(&self, inside: u32) -> Option<u32> {
        let line = self.0.iter().find(|l| inside >= l.inside && inside - l.inside < l.count)?;
        Some(line.host + (inside - line.inside))
    }
}
