//! `sandcell files`: trees whose files belong to leased ids.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Subcommand;
use sandcell::{Error, printable, subid_tree};

#[derive(Subcommand)]
pub enum Files {
    /// List a tree: mode, owner and group (inside where that is known, else host:ID), size, path
    #[command(visible_alias = "ls")]
    List { tree: PathBuf },
    /// Copy a tree to DEST, which must not be there, as the caller's own files
    #[command(visible_alias = "cp")]
    Copy { tree: PathBuf, dest: PathBuf },
    /// Make the caller the owner of a tree
    Reclaim { tree: PathBuf },
    /// Remove a tree, whatever its owners and modes
    Rm {
        #[arg(required = true)]
        trees: Vec<PathBuf>,
    },
}

/// What is to be printed.
pub fn run(what: &Files) -> Result<Vec<u8>, Error> {
    let mut text = String::new();
    match what {
        Files::List { tree } => {
            for entry in subid_tree::list(tree)? {
                let id = |inside: Option<u32>, host| inside.map_or(format!("host:{host}"), |id: u32| id.to_string());
                let (uid, gid) = (id(entry.uid, entry.host_uid), id(entry.gid, entry.host_gid));
                let kind = match entry.kind {
                    subid_tree::EntryKind::Directory => 'd',
                    subid_tree::EntryKind::File => '-',
                    subid_tree::EntryKind::Symlink => 'l',
                    _ => '?',
                };
                let path = printable(entry.path.as_os_str().as_bytes());
                let _ = writeln!(text, "{kind}{:04o} {uid:>10} {gid:>10} {:>12} {path}", entry.mode, entry.size);
            }
        }
        Files::Copy { tree, dest } => {
            for path in subid_tree::copy_out(tree, dest)? {
                let _ = writeln!(text, "left out: {}", printable(path.as_os_str().as_bytes()));
            }
        }
        Files::Reclaim { tree } => subid_tree::reclaim(tree)?,
        Files::Rm { trees } => trees.iter().try_for_each(subid_tree::remove)?,
    }
    Ok(text.into())
}
