//! Conformance suite for backends, fake vhost-user front end, fault injectors
