package cri

import (
	"context"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"cri-mini/podsandbox"
	"cri-mini/podsandbox/metrics"
)

func (s *Server) ListMetricDescriptors(context.Context, *criapi.ListMetricDescriptorsRequest) (*criapi.ListMetricDescriptorsResponse, error) {
	answer := &criapi.ListMetricDescriptorsResponse{}
	for _, d := range metrics.Descriptors() {
		answer.Descriptors = append(answer.Descriptors, &criapi.MetricDescriptor{Name: d.Name, Help: d.Help, LabelKeys: d.Labels})
	}
	return answer, nil
}

func (s *Server) ListPodSandboxMetrics(ctx context.Context, _ *criapi.ListPodSandboxMetricsRequest) (*criapi.ListPodSandboxMetricsResponse, error) {
	list, err := s.Pods.Metrics(ctx)
	if err != nil {
		return nil, rpcError(err)
	}
	answer := &criapi.ListPodSandboxMetricsResponse{}
	for _, p := range list {
		answer.PodMetrics = append(answer.PodMetrics, podMetrics(p))
	}
	return answer, nil
}

func podMetrics(p podsandbox.PodMetrics) *criapi.PodSandboxMetrics {
	m := &criapi.PodSandboxMetrics{PodSandboxId: p.ID, Metrics: metricMessages(p.Pod)}
	for _, c := range p.Containers {
		m.ContainerMetrics = append(m.ContainerMetrics, &criapi.ContainerMetrics{ContainerId: c.ID, Metrics: metricMessages(c.Metrics)})
	}
	return m
}

func metricMessages(list []metrics.Metric) []*criapi.Metric {
	messages := make([]*criapi.Metric, len(list))
	for i, m := range list {
		messages[i] = &criapi.Metric{Name: m.Name, LabelValues: m.Labels, Value: number(m.Value)}
		if m.Kind == metrics.Gauge {
			messages[i].MetricType = criapi.MetricType_GAUGE
		}
		if !m.At.IsZero() { // else it is of now
			messages[i].Timestamp = m.At.UnixNano()
		}
	}
	return messages
}
