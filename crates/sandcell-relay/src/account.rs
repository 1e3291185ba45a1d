//! The account of connections: a table in memory that the library shares.

use core::sync::atomic::{AtomicU32, Ordering};

use sandcell_protocol::network::{ENTRIES, Entry, Table};

/// Where the table is.
pub struct Account {
    table: *mut Table,
}

/// What is noted of a connection or a refusal.
#[derive(Clone, Copy)]
pub struct Note<'a> {
    pub address: [u8; 16],
    pub port: u16,
    pub protocol: u8,
    pub verdict: u8,
    pub why: u8,
    pub rule: u32,
    pub errno: u16,
    pub name: &'a [u8],
}

/// The place of an entry; `NO_ENTRY` where there was no room.
pub type Place = u32;
pub const NO_ENTRY: Place = u32::MAX;

impl Account {
    pub const NONE: Account = Account { table: core::ptr::null_mut() };

    /// # Safety
    /// A mapping of a whole table, which nobody else writes to.
    pub unsafe fn open(table: *mut Table) -> Account {
        Account { table }
    }

    fn table(&mut self) -> Option<&mut Table> {
        // SAFETY: null, or what `open` was given; the one reference at a time, as `self` is.
        unsafe { self.table.as_mut() }
    }

    pub fn note(&mut self, note: Note<'_>) -> Place {
        let Some(table) = self.table() else { return NO_ENTRY };
        let used = (table.used as usize).min(ENTRIES);
        let name = &note.name[..note.name.len().min(255)];
        let same = |entry: &Entry| {
            entry.address == note.address
                && (entry.port, entry.protocol, entry.verdict, entry.why, entry.rule)
                    == (note.port, note.protocol, note.verdict, note.why, note.rule)
                && &entry.name[..usize::from(entry.name_length)] == name
        };
        if let Some(at) = table.entries[..used].iter().position(same) {
            table.entries[at].count += 1;
            table.entries[at].errno = note.errno;
            return at as Place;
        }
        let Some(entry) = table.entries.get_mut(used) else {
            table.more += 1;
            return NO_ENTRY;
        };
        let mut bytes = [0; 256];
        bytes[..name.len()].copy_from_slice(name);
        *entry = Entry {
            address: note.address,
            port: note.port,
            protocol: note.protocol,
            verdict: note.verdict,
            why: note.why,
            name_length: name.len() as u8,
            errno: note.errno,
            rule: note.rule,
            unused: 0,
            count: 1,
            sent: 0,
            received: 0,
            name: bytes,
        };
        // SAFETY: the field of a table that is there; the library reads it at any time.
        let count = unsafe { AtomicU32::from_ptr(&raw mut table.used) };
        count.store(used as u32 + 1, Ordering::Release);
        used as Place
    }

    /// Adds bytes to the peer and from it.
    pub fn add(&mut self, place: Place, sent: u64, received: u64) {
        if let Some(entry) = self.table().and_then(|table| table.entries.get_mut(place as usize)) {
            entry.sent += sent;
            entry.received += received;
        }
    }
}
