// Visits a p2pfed bootstrap peer with js-libp2p: node visit.mjs MULTIADDR CID. Prints one JSON object.
Promise.withResolvers ??= function () { // js-libp2p is written for Node 22
  let resolve, reject
  const promise = new Promise((a, b) => { resolve = a; reject = b })
  return { promise, resolve, reject }
}

const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@chainsafe/libp2p-noise')
const { yamux } = await import('@chainsafe/libp2p-yamux')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { kadDHT, passthroughMapper } = await import('@libp2p/kad-dht')
const { multiaddr } = await import('@multiformats/multiaddr')
const { CID } = await import('multiformats/cid')

const [address, cid] = process.argv.slice(2)
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    // Loopback addresses count here: by default they are taken out.
    dht: kadDHT({ protocol: '/ipfs/kad/1.0.0', clientMode: false, peerInfoMapper: passthroughMapper })
  }
})
const connection = await node.dial(multiaddr(address))
// js-libp2p identifies and pings by itself too, and allows one stream of each at a time.
async function inTurn (ask) {
  for (let tries = 0; ; tries++) {
    try {
      return await ask()
    } catch (error) {
      if (error.name !== 'TooManyOutboundProtocolStreamsError' || tries > 50) throw error
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}
const told = await inTurn(() => node.services.identify.identify(connection))
const rtt = await inTurn(() => node.services.ping.ping(multiaddr(address)))

const providers = {}
for await (const found of node.contentRouting.findProviders(CID.parse(cid), { signal: AbortSignal.timeout(15000) })) {
  providers[found.id.toString()] = found.multiaddrs.map(each => each.toString())
}
const registered = []
for await (const event of node.services.dht.provide(CID.parse(cid), { signal: AbortSignal.timeout(15000) })) {
  registered.push(event.name)
}
console.log(JSON.stringify({
  own: node.peerId.toString(),
  agent: told.agentVersion,
  protocolVersion: told.protocolVersion,
  protocols: told.protocols,
  listening: told.listenAddrs.map(each => each.toString()),
  observed: told.observedAddr?.toString(),
  encryption: connection.encryption,
  multiplexer: connection.multiplexer,
  rtt,
  providers,
  registered
}))
await node.stop()
process.exit(0)
