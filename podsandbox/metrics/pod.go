package metrics

import "cri-mini/runtime/spec"

// ofPods is the table of what belongs to a pod as a whole.
var ofPods = []row[Pod]{
	{"container_network_receive_bytes_total", "Bytes received.", Counter, interfaceLabel, network(func(i spec.Interface) uint64 { return i.RxBytes })},
	{"container_network_receive_packets_total", "Packets received.", Counter, interfaceLabel, network(func(i spec.Interface) uint64 { return i.RxPackets })},
	{"container_network_receive_errors_total", "Errors while receiving.", Counter, interfaceLabel, network(func(i spec.Interface) uint64 { return i.RxErrors })},
	{"container_network_receive_packets_dropped_total", "Packets dropped while receiving.", Counter, interfaceLabel,
		network(func(i spec.Interface) uint64 { return i.RxDropped })},
	{"container_network_transmit_bytes_total", "Bytes sent.", Counter, interfaceLabel, network(func(i spec.Interface) uint64 { return i.TxBytes })},
	{"container_network_transmit_packets_total", "Packets sent.", Counter, interfaceLabel, network(func(i spec.Interface) uint64 { return i.TxPackets })},
	{"container_network_transmit_errors_total", "Errors while sending.", Counter, interfaceLabel, network(func(i spec.Interface) uint64 { return i.TxErrors })},
	{"container_network_transmit_packets_dropped_total", "Packets dropped while sending.", Counter, interfaceLabel,
		network(func(i spec.Interface) uint64 { return i.TxDropped })},
}

var interfaceLabel = []string{"interface"}

func network(get func(spec.Interface) uint64) func(*Pod) []value {
	return func(p *Pod) (list []value) {
		for _, i := range p.Interfaces {
			list = append(list, value{n: get(i), labels: []string{i.Name}})
		}
		return list
	}
}
