//! Who the program is: UIDs inside and on the host.
