//! The topic list of SUBSCRIBE and UNSUBSCRIBE: protocol strings, back to back.

use core::fmt;

use super::PacketError;

/// A list of topics, borrowed from its frame, in the order in which they stand there.
///
/// Invariant: `strings` is a sequence of whole protocol strings, each of them UTF-8.
/// [`Topics::parse`] has checked all of it, so a list is applied whole or not at all.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Topics<'a> {
    strings: &'a [u8],
}

impl<'a> Topics<'a> {
    /// Checks a whole payload.
    ///
    /// # Errors
    /// A length byte points past the end, or a topic is not UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Self, PacketError> {
        let mut rest = payload;
        while let Some((topic, behind)) = split_string(rest)? {
            str::from_utf8(topic).map_err(|_| PacketError::TopicNotUtf8)?;
            rest = behind;
        }
        Ok(Self { strings: payload })
    }

    /// The list as it stands in the frame.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.strings
    }

    /// Whether there is no topic at all.
    pub const fn is_empty(self) -> bool {
        self.strings.is_empty()
    }
}

/// Yields each topic, 0 to 254 bytes long.
impl<'a> Iterator for Topics<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (topic, rest) = split_string(self.strings).ok().flatten()?;
        self.strings = rest;
        str::from_utf8(topic).ok()
    }
}

impl fmt::Debug for Topics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// A protocol string without its length byte, and what follows it.
pub(super) type SplitString<'a> = Option<(&'a [u8], &'a [u8])>;

/// Splits a protocol string off the front: a length byte and as many bytes. `None` at the end.
pub(super) fn split_string(input: &[u8]) -> Result<SplitString<'_>, PacketError> {
    let Some((&len, rest)) = input.split_first() else {
        return Ok(None);
    };
    rest.split_at_checked(usize::from(len))
        .map(Some)
        .ok_or(PacketError::TopicOverrun)
}
