//! The file of a unix socket: made, and taken away again, without touching anybody else's.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mio::net::UnixListener;
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

/// A socket file that this process made. Dropped, it goes, unless it has been replaced meanwhile.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Listens on `path`. A socket file that nobody listens on any more is replaced; any other file
    /// there is left alone.
    pub(crate) fn bind(path: &Path, backlog: i32) -> io::Result<(UnixListener, Self)> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let address = SockAddr::unix(path)?;
        if let Err(error) = socket.bind(&address) {
            if error.kind() != io::ErrorKind::AddrInUse || !is_stale(path, &address) {
                return Err(error);
            }
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        let made = fs::symlink_metadata(path)?;
        let file = Self {
            path: path.into(),
            device: made.dev(),
            inode: made.ino(),
        };
        socket.listen(backlog)?;
        Ok((UnixListener::from_std(socket.into()), file))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |file: fs::Metadata| (file.dev(), file.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // Somebody may remove it in this very moment, which is what is wanted.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` is a socket that refuses connections. One that lets them wait is alive.
fn is_stale(path: &Path, address: &SockAddr) -> bool {
    // Any other kind of file refuses as well.
    if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return false;
    }
    let Ok(probe) = Socket::new(Domain::UNIX, Type::STREAM, None) else {
        return false;
    };
    // A broker that has been stopped, with a full backlog, must not make this one wait for it.
    let refused = || {
        probe.set_nonblocking(true)?;
        probe.connect(address)
    };
    refused().is_err_and(|error| error.raw_os_error() == Some(Errno::CONNREFUSED.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn h8_only_a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hvlp.sock");

        fs::write(&path, "a thesis").unwrap();
        let refused = SocketFile::bind(&path, 8).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a thesis");
        fs::remove_file(&path).unwrap();

        let (listener, file) = SocketFile::bind(&path, 8).unwrap();
        assert_eq!(
            SocketFile::bind(&path, 8).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        UnixStream::connect(&path).unwrap();

        // As after a crash: the listener has gone, its file has not.
        drop(listener);
        std::mem::forget(file);
        let (_listener, file) = SocketFile::bind(&path, 8).unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn h8_a_file_that_has_been_replaced_is_not_ours_to_remove() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hvlp.sock");
        let (_first, first_file) = SocketFile::bind(&path, 8).unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        let (_second, _second_file) = SocketFile::bind(&path, 8).unwrap();
        drop(first_file);
        UnixStream::connect(&path).unwrap();
    }
}
