//! Extended attributes of a node.

use vfsd_backend::posix::{Acl, XattrNamespace};
use vfsd_backend::{Errno, Result, XattrFlags, XattrName};

use crate::node::VolumeNode;
use crate::txn::Txn;

impl VolumeNode {
    pub(crate) fn read_xattr(&self, name: XattrName<'_>) -> Result<Vec<u8>, Errno> {
        let state = self.inode.state.read();
        let value = match XattrNamespace::of(name, self.inode.kind, Errno::NODATA)? {
            XattrNamespace::Plain => state
                .xattrs
                .get(name.as_bytes())
                .map(|value| value.to_vec()),
            XattrNamespace::AccessAcl => state.acl.as_ref().map(|acl| acl.encode()),
            XattrNamespace::DefaultAcl => state.default_acl.as_ref().map(|acl| acl.encode()),
        };
        value.ok_or(Errno::NODATA)
    }

    pub(crate) fn write_xattr(
        &self,
        name: XattrName<'_>,
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let inode = &*self.inode;
        let mut txn = Txn::new(&inode.core);
        txn.state(inode).flags().check_changeable()?;
        match XattrNamespace::of(name, inode.kind, Errno::PERM)? {
            XattrNamespace::Plain => txn.set_xattr(inode, name.as_bytes(), value, flags)?,
            XattrNamespace::AccessAcl => txn.set_access_acl(inode, Acl::decode(value)?, flags),
            XattrNamespace::DefaultAcl => {
                let acl = Acl::decode(value)?;
                if acl.is_some() && !inode.is_directory() {
                    return Err(Errno::ACCESS.into());
                }
                txn.set_default_acl(inode, acl);
            }
        }
        txn.state(inode).attributes_changed();
        txn.commit()
    }

    pub(crate) fn erase_xattr(&self, name: XattrName<'_>) -> Result<()> {
        let inode = &*self.inode;
        let mut txn = Txn::new(&inode.core);
        txn.state(inode).flags().check_changeable()?;
        match XattrNamespace::of(name, inode.kind, Errno::PERM)? {
            XattrNamespace::Plain => {
                if !txn.remove_xattr(inode, name.as_bytes()) {
                    return Err(Errno::NODATA.into());
                }
            }
            XattrNamespace::AccessAcl => txn.set_access_acl(inode, None, XattrFlags::empty()),
            XattrNamespace::DefaultAcl => txn.set_default_acl(inode, None),
        }
        txn.state(inode).attributes_changed();
        txn.commit()
    }
}
