//! Which stages a build needs, and what their names mean.

use std::collections::BTreeSet;

use super::words::{Variables, expand, split};
use super::{Build, Instruction, Stage};
use crate::images::platform::Platform;

/// Arguments that everybody may give without declaring them; they are in no layer's key and in no image.
pub(super) const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What docker's builder says of the platforms: that of the image, and that of the programs that make it.
pub(super) fn platforms(target: &Platform) -> Variables {
    let mut all = Variables::new();
    for (start, of) in [("TARGET", target), ("BUILD", &Platform::host())] {
        let variant = of.variant.clone().unwrap_or_default();
        for (end, value) in [
            ("PLATFORM", of.to_string()),
            ("OS", of.os.clone()),
            ("ARCH", of.architecture.clone()),
            ("VARIANT", variant),
        ] {
            all.insert(format!("{start}{end}"), value);
        }
    }
    all
}

/// What stands behind a word in FROM, with the arguments before the first FROM.
pub(super) fn base_of(stage: &Stage, global: &Variables) -> Result<String, String> {
    let words = expand(&stage.base, global).and_then(|text| split(&text))?;
    match &words[..] {
        [word] if !word.is_empty() => Ok(word.clone()),
        _ => Err(format!("{:?} comes to no name of an image", stage.base)),
    }
}

impl Build {
    /// The stage of a name or number among those before another.
    pub(super) fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let stages = &self.stages[..before];
        let name = name.to_lowercase();
        let named = stages.iter().rposition(|stage| stage.name.as_deref() == Some(name.as_str()));
        named.or_else(|| name.parse().ok().filter(|number| *number < stages.len()))
    }

    /// The stages that the target needs, in their order; the last one is the target.
    pub(super) fn needed(&self, global: &Variables) -> Result<Vec<usize>, String> {
        let target = match &self.target {
            None => self.stages.len() - 1,
            Some(name) => self
                .stage_named(name, self.stages.len())
                .ok_or_else(|| format!("there is no stage {:?} to build", name.escape_debug().to_string()))?,
        };
        let (mut needed, mut pending) = (BTreeSet::new(), vec![target]);
        while let Some(number) = pending.pop() {
            if !needed.insert(number) {
                continue;
            }
            let stage = &self.stages[number];
            pending.extend(self.stage_named(&base_of(stage, global)?, number));
            for step in &stage.steps {
                let from: Vec<&String> = match &step.what {
                    Instruction::Copy(copy) => copy.from.iter().collect(),
                    Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_ref()).collect(),
                    _ => Vec::new(),
                };
                pending.extend(from.into_iter().filter_map(|name| self.stage_named(name, number)));
            }
        }
        Ok(needed.into_iter().filter(|number| *number <= target).collect())
    }

    /// Whether a stage declares the argument, or everybody may give it.
    pub(super) fn declares(&self, key: &str) -> bool {
        let steps = self.global.iter().chain(self.stages.iter().flat_map(|stage| &stage.steps));
        let declared = |text: &str| {
            let words = split(text).unwrap_or_default();
            words.iter().any(|word| word.split('=').next() == Some(key))
        };
        PREDEFINED.contains(&key)
            || steps.into_iter().any(|step| matches!(&step.what, Instruction::Arg(text) if declared(text)))
    }
}
