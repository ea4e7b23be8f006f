//! Webhook and keeper together, over random histories of one Secret: writes, deadlines, crashes of
//! either, clocks that are set. Their pure parts are driven as the programs drive them; nothing here
//! waits.

mod laws;
mod system;
