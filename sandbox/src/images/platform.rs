//! What an image is for: an operating system and an architecture, in the words of OCI and Docker.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::config::ImageConfig;
use super::reference::Digest;
use crate::error::{Error, Failure, Result};

/// What an image is for, such as `linux/arm64`; read from that form, or from the architecture alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Platform {
    /// In Go's words: `linux`, always so for images that can be had here.
    pub os: String,
    /// In Go's words: `amd64`, `arm64`, ….
    pub architecture: String,
    /// `v8`, for example; most images have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// What runs here: `linux/amd64` or `linux/arm64`.
    pub fn host() -> Platform {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// Whether an image that says this is one for `wanted`. The variant counts where both name one.
    pub(crate) fn fits(&self, wanted: &Platform) -> bool {
        let variants = self.variant.as_ref().zip(wanted.variant.as_ref());
        (&self.os, &self.architecture) == (&wanted.os, &wanted.architecture)
            && variants.is_none_or(|(mine, theirs)| mine == theirs)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `OS/ARCHITECTURE[/VARIANT]`, or `ARCHITECTURE`; uname's words for it are taken too.
    fn from_str(text: &str) -> Result<Platform> {
        let wrong = |message: &str| {
            Failure::new("platform", text.escape_debug().to_string(), message)
                .hint("Write OS/ARCHITECTURE, such as linux/amd64 or linux/arm64.")
                .config()
        };
        let words: Vec<&str> = text.split('/').collect();
        let usual = |word: &&str| {
            !word.is_empty()
                && word.len() <= 32
                && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if !words.iter().all(usual) {
            return Err(wrong("no platform"));
        }
        let host = Platform::host().architecture;
        let (os, architecture, variant) = match words[..] {
            ["linux"] => ("linux", host.as_str(), None),
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(wrong("no platform")),
        };
        if os != "linux" {
            return Err(wrong("only images of Linux can be had"));
        }
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let variant = variant.map(str::to_owned);
        Ok(Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

impl ImageConfig {
    /// Refuses programs of another architecture. A configuration that names none counts as ours.
    pub(crate) fn check_runs_here(&self, name: &str, id: Digest) -> Result<()> {
        let host = Platform::host();
        if self.architecture.is_empty() || self.architecture == host.architecture {
            return Ok(());
        }
        let theirs = self.architecture.escape_debug();
        let message = format!("the image {} is for linux/{theirs}, and this host runs {host}", id.short());
        Err(Failure::new("image-platform", name, message)
            .hint(format!("Pull or load the image for {host}."))
            .unsupported())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_platform_is_read_in_every_usual_form_and_nothing_else_is() {
        for (text, is) in [
            ("linux/arm64", "linux/arm64"),
            ("arm64", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("x86_64", "linux/amd64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux", &Platform::host().to_string()),
        ] {
            assert_eq!(read(text).to_string(), is);
        }
        for wrong in ["", "/", "linux/", "/arm64", "windows/amd64", "linux/arm/v7/x", "linux/arm 64", "linux/\u{e9}"] {
            let error = wrong.parse::<Platform>().unwrap_err();
            assert_eq!((error.kind(), error.stage()), ("config", "platform"), "{wrong:?}");
        }
    }

    #[test]
    fn a_variant_counts_where_both_name_one() {
        assert!(read("linux/arm64/v8").fits(&read("arm64")) && read("arm64").fits(&read("linux/arm64/v8")));
        assert!(!read("linux/arm/v6").fits(&read("linux/arm/v7")));
        assert!(!read("arm64").fits(&read("amd64")));
    }
}
