"""What the end-to-end tests stand on: real daemons, a real RabbitMQ, a real Consul agent, an imitated API."""
