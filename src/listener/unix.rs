//! The unix socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::BindError;

/// The same reach as a loopback port: what protects is the signature.
const MODE: u32 = 0o666;

/// Binds the socket. A file that a dead process left there is replaced; one that somebody listens on is not.
pub(super) fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let refuse = |reason: io::Error, hint: &str| {
        let address = format!("unix:{}", path.display());
        BindError { address, reason, hint: hint.to_owned() }
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(refuse(source, "; what is there is no socket: remove it, or change `unix_socket`"));
        }
        Ok(_) => require_dead(path).map_err(|source| {
            let hint = match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "; another program listens there (another shardless?): stop it, or change `unix_socket`"
                }
                _ => "; whether another program uses it cannot be told: remove it, or change `unix_socket`",
            };
            refuse(source, hint)
        })?,
        Err(_) => {}
    }
    replace(path).map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::NotFound => "; its folder must exist",
            io::ErrorKind::PermissionDenied => {
                "; the user that runs shardless must be able to write into its folder"
            }
            _ => "",
        };
        refuse(source, hint)
    })
}

/// Nobody listens there: only a refused connection says so. Without waiting, since the one who listens may hang.
fn require_dead(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Bound under another name and then moved, so that at no time a client finds nothing, or a socket that it may not use.
fn replace(path: &Path) -> io::Result<UnixListener> {
    // Short, since the system takes paths of sockets only up to 107 bytes.
    let unfinished = path.with_file_name(format!(".{:x}", std::process::id()));
    _ = fs::remove_file(&unfinished);
    let listener = std::os::unix::net::UnixListener::bind(&unfinished)?;
    let placed = fs::set_permissions(&unfinished, fs::Permissions::from_mode(MODE))
        .and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = placed {
        _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    /// One whose queue is full and who accepts nothing any more is alive all the same, and nobody waits for it.
    #[tokio::test]
    async fn a_socket_that_hangs_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        let hanging = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        hanging.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        hanging.listen(0).unwrap();
        let waiting = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        waiting.connect(&SockAddr::unix(&path).unwrap()).unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("another program listens there"));
    }

    #[tokio::test]
    async fn a_socket_of_another_kind_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("cannot be told"));
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_process_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        drop(bind(&path).unwrap());
        assert!(path.exists());
        let second = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(second);
    }

    #[tokio::test]
    async fn a_live_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        let _first = bind(&path).unwrap();
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains("another program listens there"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http.sock");
        fs::write(&path, "mine").unwrap();
        assert!(bind(&path).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let error = bind(&folder.path().join("no/http.sock")).unwrap_err().to_string();
        assert!(error.contains("its folder must exist"), "{error}");
    }
}
