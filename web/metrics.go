package web

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// raftStates are all values of the state label, so that each series exists.
var raftStates = [...]string{"leader", "follower", "candidate", "shutdown"}

// collector turns State into metrics at each scrape.
type collector struct {
	source Source
	now    func() time.Time

	build, revision, quorum, raft, members, alive, certificate              *prometheus.Desc
	ca, format                                                              *prometheus.Desc
	applied, lag, entries, held, conflicts, rejected, busy, rootLost        *prometheus.Desc
	failing, unsent, watched, overflows, dataFree, dataReserve, dataTrouble *prometheus.Desc
	proposals, blobs, blobBytes, blobDisk, carrierBytes, carrierUp          *prometheus.Desc
	carrierContent, carrierWire                                             *prometheus.Desc
	edited, repaired                                                        *prometheus.Desc
	corrupt, mended, lostBlobs, scrubbed, scrubs                            *prometheus.Desc
	targetRevision, targetCurrent, targetHeld, targetPusher                 *prometheus.Desc
}

func newCollector(source Source) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("gatesync_"+name, help, labels, nil)
	}
	return &collector{
		source:         source,
		now:            time.Now,
		build:          d("build_info", "Always 1; the version is in the label.", "version", "node", "name"),
		revision:       d("revision", "Newest committed revision known to this node."),
		quorum:         d("quorum", "1 while a leader is known and answers, else 0."),
		raft:           d("raft_state", "1 for the state that this node's Raft is in.", "state"),
		members:        d("members", "Members of the cluster."),
		alive:          d("members_alive", "Members that this node hears from, itself included."),
		certificate:    d("certificate_expiry_seconds", "Seconds until this node's certificate ends."),
		ca:             d("ca_expiry_seconds", "Seconds until the CA of this node's certificate ends."),
		format:         d("log_format", "Format of the log: the active one, and the newest that this node understands.", "which"),
		applied:        d("tree_applied_revision", "Revision that the tree on disk agrees with.", "tree"),
		lag:            d("tree_apply_lag_seconds", "Age of the oldest committed revision that the tree lacks.", "tree"),
		entries:        d("tree_entries", "Entries of the tree as committed.", "tree"),
		held:           d("held", "Paths that a guard holds back.", "tree"),
		edited:         d("tree_edited", "Local edits that stand in a tree that takes none (write: never).", "tree"),
		repaired:       d("tree_repaired_total", "Local edits that were put back in a tree that takes none (write: never).", "tree"),
		conflicts:      d("conflicts", "Contents that lost a conflict and are kept aside.", "tree"),
		rejected:       d("rejected", "Paths that the gateway beside this node rejected.", "tree"),
		busy:           d("busy", "Paths that somebody is writing.", "tree"),
		rootLost:       d("tree_root_lost", "1 while the tree's root is missing or not ours.", "tree"),
		failing:        d("failing", "Committed changes that cannot be brought to this node's disk.", "tree"),
		unsent:         d("tree_unsent", "Local edits that could not be committed so far.", "tree"),
		watched:        d("tree_watched_directories", "Directories whose file events are told.", "tree"),
		overflows:      d("tree_event_overflows_total", "How often file events were lost and the tree was scanned instead.", "tree"),
		dataFree:       d("data_free_bytes", "Free space on the data directory's disk."),
		dataReserve:    d("data_reserve_bytes", "Space on the data directory's disk below which no content is taken."),
		dataTrouble:    d("data_trouble", "1 while the data directory's disk is full or hangs."),
		proposals:      d("proposals_total", "Changes proposed by this node, by result.", "result"),
		blobs:          d("blobs", "Blobs in the store."),
		blobBytes:      d("blob_bytes", "Bytes of content in the blob store."),
		blobDisk:       d("blob_disk_bytes", "Bytes that the blob store takes on disk."),
		corrupt:        d("blobs_corrupt_total", "Blobs found damaged on this node's disk."),
		mended:         d("blobs_mended_total", "Blobs missing after damage that were brought back."),
		lostBlobs:      d("blobs_lost", "Blobs damaged here that no other member has."),
		scrubbed:       d("scrub_bytes_total", "Bytes of content that the scrub of the blob store has read."),
		scrubs:         d("scrub_passes_total", "Complete passes of the scrub."),
		carrierUp:      d("carrier_up", "1 while this carrier can be used.", "carrier"),
		carrierBytes:   d("carrier_bytes_total", "Bytes of content by carrier and direction.", "carrier", "direction"),
		carrierContent: d("carrier_content_bytes_total", "Bytes of content by carrier, direction and encoding (whole, delta).", "carrier", "direction", "encoding"),
		carrierWire:    d("carrier_wire_bytes_total", "Bytes that travelled for content by carrier, direction and encoding (whole, delta).", "carrier", "direction", "encoding"),
		targetRevision: d("target_revision", "Revision that a target surely has, as its pusher last told.", "target"),
		targetCurrent:  d("target_current", "1 while a target has all that is committed; 0 while it is being pushed to, cannot be reached or refuses.", "target"),
		targetHeld:     d("target_held", "Paths that were made at a target and are held there.", "target"),
		targetPusher:   d("target_pusher", "1 where this node is the one that pushes to the target.", "target"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.source.State()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(c.build, 1, s.Version, s.Node, s.Name)
	gauge(c.revision, float64(s.Revision))
	gauge(c.quorum, truth(s.Quorum))
	for _, state := range raftStates {
		gauge(c.raft, truth(s.Raft == state), state)
	}
	gauge(c.members, float64(s.Members))
	gauge(c.alive, float64(s.Alive))
	gauge(c.dataFree, float64(s.Data.Free))
	gauge(c.dataReserve, float64(s.Data.Reserve))
	gauge(c.dataTrouble, truth(s.Data.Trouble))
	if !s.CertificateExpires.IsZero() {
		gauge(c.certificate, s.CertificateExpires.Sub(c.now()).Seconds())
	}
	if !s.CAExpires.IsZero() {
		gauge(c.ca, s.CAExpires.Sub(c.now()).Seconds())
	}
	if s.NewestFormat > 0 {
		gauge(c.format, float64(s.Format), "active")
		gauge(c.format, float64(s.NewestFormat), "newest")
	}
	for _, t := range s.Trees {
		gauge(c.applied, float64(t.Applied), t.Name)
		gauge(c.lag, t.Lag.Seconds(), t.Name)
		gauge(c.entries, float64(t.Entries), t.Name)
		gauge(c.held, float64(t.Held), t.Name)
		gauge(c.edited, float64(t.Edited), t.Name)
		counter(c.repaired, t.Repaired, t.Name)
		gauge(c.conflicts, float64(t.Conflicts), t.Name)
		gauge(c.rejected, float64(t.Rejected), t.Name)
		gauge(c.busy, float64(t.Busy), t.Name)
		gauge(c.rootLost, truth(t.Lost != ""), t.Name)
		gauge(c.failing, float64(t.Failing), t.Name)
		gauge(c.unsent, float64(t.Unsent), t.Name)
		gauge(c.watched, float64(t.Watched), t.Name)
		counter(c.overflows, t.Overflows, t.Name)
	}
	for result, n := range s.Proposals {
		counter(c.proposals, n, result)
	}
	gauge(c.blobs, float64(s.Blobs.Count))
	gauge(c.blobBytes, float64(s.Blobs.Bytes))
	gauge(c.blobDisk, float64(s.Blobs.Disk))
	counter(c.corrupt, s.Blobs.Corrupt)
	counter(c.mended, s.Blobs.Mended)
	gauge(c.lostBlobs, float64(s.Blobs.Lost))
	counter(c.scrubbed, s.Blobs.Scrubbed)
	counter(c.scrubs, s.Blobs.Scrubs)
	for _, t := range s.Targets {
		gauge(c.targetRevision, float64(t.Revision), t.Name)
		gauge(c.targetCurrent, truth(t.Current), t.Name)
		gauge(c.targetHeld, float64(t.Held), t.Name)
		gauge(c.targetPusher, truth(t.Mine), t.Name)
	}
	for _, k := range s.Carriers {
		gauge(c.carrierUp, truth(k.Well), k.Name)
		counter(c.carrierBytes, k.Whole.Sent+k.Deltas.Sent, k.Name, "sent")
		counter(c.carrierBytes, k.Whole.Received+k.Deltas.Received, k.Name, "received")
		for encoding, m := range map[string]Moved{"whole": k.Whole, "delta": k.Deltas} {
			counter(c.carrierContent, m.Sent, k.Name, "sent", encoding)
			counter(c.carrierContent, m.Received, k.Name, "received", encoding)
			counter(c.carrierWire, m.SentWire, k.Name, "sent", encoding)
			counter(c.carrierWire, m.ReceivedWire, k.Name, "received", encoding)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
