//! A cell that is ended and removed with the test, however that ends.

use sandcell::NamedCell;

pub struct Gone(pub NamedCell);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.remove();
    }
}

impl std::ops::Deref for Gone {
    type Target = NamedCell;

    fn deref(&self) -> &NamedCell {
        &self.0
    }
}
