//! The same facts as a plugin: `vfsd mount plugin:exec:target/debug/facts_plugin PATH`.

fn main() -> Result<(), vfsd_plugin::PluginError> {
    vfsd_plugin::serve(vfsd_examples::facts::Facts)
}
