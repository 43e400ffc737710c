"""What of docker-py's surface the engine refuses, and why.

The reasons in words are the engine's answers, which `test_refused.py` asks for: none is a 500.
"""

NO_MANAGER = "503: the engine is one machine's, as a Docker that is no Swarm node"
NO_SWARM = "501: the engine can become no Swarm node"
NO_PLUGINS = "501: volume, network and log drivers are built in; there are none to install"
NO_PLUGIN = "404: no plugin can be there"
NO_OBJECT = "there is no such object to call it on: those that make one are refused"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("APIClient.init_swarm", "APIClient.join_swarm", "Swarm.init", "Swarm.join"), NO_SWARM),
    **dict.fromkeys(
        (
            *("APIClient.inspect_swarm", "APIClient.leave_swarm", "APIClient.update_swarm"),
            *("APIClient.get_unlock_key", "APIClient.unlock_swarm"),
            *("APIClient.nodes", "APIClient.inspect_node", "APIClient.update_node", "APIClient.remove_node"),
            *("APIClient.services", "APIClient.create_service", "APIClient.inspect_service"),
            *("APIClient.update_service", "APIClient.remove_service", "APIClient.service_logs"),
            *("APIClient.tasks", "APIClient.inspect_task"),
            *("APIClient.secrets", "APIClient.create_secret", "APIClient.inspect_secret"),
            *("APIClient.remove_secret", "APIClient.remove_config"),
            *("APIClient.configs", "APIClient.create_config", "APIClient.inspect_config"),
            *("Swarm.get_unlock_key", "Swarm.leave", "Swarm.reload", "Swarm.unlock"),
            *("NodeCollection.get", "NodeCollection.list"),
            *("ServiceCollection.create", "ServiceCollection.get", "ServiceCollection.list"),
            *("SecretCollection.create", "SecretCollection.get", "SecretCollection.list"),
            *("ConfigCollection.create", "ConfigCollection.get", "ConfigCollection.list"),
        ),
        NO_MANAGER,
    ),
    **dict.fromkeys(
        (
            *("APIClient.plugin_privileges", "APIClient.pull_plugin", "APIClient.create_plugin"),
            *("APIClient.upgrade_plugin", "PluginCollection.install", "PluginCollection.create"),
        ),
        NO_PLUGINS,
    ),
    **dict.fromkeys(
        (
            *("APIClient.inspect_plugin", "APIClient.enable_plugin", "APIClient.disable_plugin"),
            *("APIClient.remove_plugin", "APIClient.push_plugin", "APIClient.configure_plugin"),
            "PluginCollection.get",
        ),
        NO_PLUGIN,
    ),
    **dict.fromkeys(
        (
            *("Node.id", "Node.short_id", "Node.reload", "Node.remove", "Node.update", "Node.version"),
            *("Service.id", "Service.short_id", "Service.reload", "Service.remove", "Service.update"),
            *("Service.version", "Service.name", "Service.force_update", "Service.logs", "Service.scale"),
            *("Service.tasks", "Swarm.short_id", "Swarm.version", "Swarm.update"),
            *("Secret.id", "Secret.short_id", "Secret.reload", "Secret.remove", "Secret.name"),
            *("Config.id", "Config.short_id", "Config.reload", "Config.remove", "Config.name"),
            *("Plugin.id", "Plugin.short_id", "Plugin.reload", "Plugin.remove", "Plugin.name"),
            *("Plugin.configure", "Plugin.disable", "Plugin.enable", "Plugin.enabled", "Plugin.push"),
            *("Plugin.settings", "Plugin.upgrade"),
        ),
        NO_OBJECT,
    ),
    **dict.fromkeys(
        ("NodeCollection.create", "ImageCollection.create"),
        "docker-py itself has no such thing (NotImplementedError)",
    ),
    "APIClient.search": "503: the OCI distribution protocol, which the engine speaks, has no search",
    "ImageCollection.search": "503: as APIClient.search",
}
