package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// plot draws curves as SVG, time as a logarithm: each point is the median of
// the pods around it.
func plot(curves []curve) string {
	const width, height, left, top, bottom, window = 760, 420, 60, 20, 40, 10
	colours := []string{"#0a7", "#d33", "#36c", "#a5a"}
	most, least, slowest := 1, time.Hour, time.Duration(1)
	for _, c := range curves {
		most = max(most, len(c.times))
		for _, d := range medians(c.times, window) {
			least, slowest = min(least, d), max(slowest, d)
		}
	}
	low, high := int(math.Floor(math.Log10(least.Seconds()))), int(math.Ceil(math.Log10(slowest.Seconds())))
	x := func(pods int) float64 { return left + float64(pods)*(width-left-20)/float64(most) }
	y := func(exponent float64) float64 {
		return height - bottom - (exponent-float64(low))*(height-top-bottom)/float64(high-low)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for e := low; e <= high; e++ {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ccc"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, y(float64(e)), width-20, left-6, y(float64(e))+4, time.Duration(math.Pow10(e+9)))
	}
	for i := range 6 {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", x(most*i/5), height-bottom+16, most*i/5)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">pods on the node; time to start one more</text>`+"\n", (left+width)/2, height-6)
	for i, c := range curves {
		var points []string
		for pods, d := range medians(c.times, window) {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(pods*window+window/2), y(math.Log10(d.Seconds()))))
		}
		colour := colours[i%len(colours)]
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colour)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", width-170, top+16*(i+1), colour, c.name)
	}
	return b.String() + "</svg>\n"
}

// medians are of so many samples each.
func medians(samples []time.Duration, window int) []time.Duration {
	var list []time.Duration
	for chunk := range slices.Chunk(samples, window) {
		list = append(list, slices.Sorted(slices.Values(chunk))[len(chunk)/2])
	}
	return list
}
