"""What loads the servers: callbacks, sockets, prepared streams; and the programs that the product is compared with."""
