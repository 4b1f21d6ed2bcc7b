//! The vhost-user device: rings and guest memory
