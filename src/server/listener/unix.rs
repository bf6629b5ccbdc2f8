//! The unix socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tokio::net::UnixListener;

use super::BindError;

/// The same reach as a loopback port: what protects is the signature.
const MODE: u32 = 0o666;

/// Binds the socket. A file that a dead process left there is replaced; one that somebody listens on is not.
pub(super) fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let refuse =
        |source: io::Error, hint| BindError { address: format!("unix:{}", path.display()), source, hint };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(refuse(source, "; what is there is no socket: remove it, or change `unix_socket`"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            let source = io::Error::from(io::ErrorKind::AddrInUse);
            return Err(refuse(
                source,
                "; another program listens there (another shardless?): stop it, or change `unix_socket`",
            ));
        }
        _ => {}
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

/// Bound under another name and then moved, so that at no time a client finds nothing, or a socket that it may not use.
fn replace(path: &Path) -> io::Result<UnixListener> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let unfinished = path.with_file_name(name);
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
    use super::*;

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
