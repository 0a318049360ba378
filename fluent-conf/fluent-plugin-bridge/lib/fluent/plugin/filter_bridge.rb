# frozen_string_literal: true

require 'fluent/engine'
require 'fluent/plugin/filter'
require 'fluent/plugin/bridge/entries'
require 'fluent/plugin/bridge/one_writer'
require 'fluent/plugin/bridge/patience'
require 'fluent/plugin/bridge/results'
require 'fluent/plugin/bridge/sidecar_parameters'
require 'fluent/plugin/bridge/unit_of_work'

module Fluent
  module Plugin
    # Runs events through the Python functions of a fluent-bridge sidecar, in the thread that emits them.
    #
    # What comes back under the same tag goes on down the pipeline. What comes back under another tag, and
    # what the functions failed on, is emitted from the top, past this filter, before the rest goes on.
    class BridgeFilter < Filter
      Fluent::Plugin.register_filter('bridge', self)

      include Bridge::SidecarParameters

      helpers :event_emitter

      def configure(conf)
        super
        @sidecar = sidecar_from_parameters
        @patience = Bridge::Patience.new(timeout, log)
        @results = Bridge::Results.new(@router, conf['@label'] || 'the pipeline that this filter stands in')
        @emitting = :"#{plugin_id}_emitting_#{object_id}"
      end

      def start
        super
        # With this label Fluentd hands it the input's events when a filter raises, and tells the input that all is
        # well (root_agent.rb, handle_emits_error): so nothing may be raised.
        @diverting = Fluent::Engine.root_agent.labels.key?('@ERROR')
      end

      def stop
        @patience.stop
        super
      end

      def close
        @sidecar.close
        super
      end

      # @param tag [String]
      # @param stream [Fluent::EventStream]
      # @return [Fluent::EventStream] what the functions made of it under the same tag
      # @raise [Bridge::SidecarError] nothing of it has gone on, so it must come again
      def filter_stream(tag, stream)
        return stream if stream.empty? || Thread.current[@emitting]

        own, others, refused = filtered(tag, stream)
        emitting do
          @results.emit(others)
          refused.each { |piece, error| emit_refused(tag, piece, error) }
        end
        Bridge::Results.joined(own)
      rescue StandardError => e
        Bridge::UnitOfWork.current&.fail(e)
        raise
      end

      private

      def filtered(tag, stream)
        refused = []
        # The size of packed events may take decoding them (event.rb, MessagePackEventStream#size).
        count = stream.is_a?(Fluent::MessagePackEventStream) ? 0 : stream.size
        binary = tag.b
        own, others = process(tag, Bridge::Entries.pack(stream), count, refused).partition do |result|
          !result.error && result.tag == binary
        end
        [own, others, refused]
      end

      def process(tag, entries, count, refused)
        patiently do |seconds|
          streams = @sidecar.process(tag, entries, count, seconds)
          @results.check(streams.reject { |stream| stream.tag == tag.b })
          streams
        end
      rescue Bridge::Refused => e
        pieces = Bridge::Entries.halves(entries)
        return pieces.flat_map { |piece| process(tag, piece, 0, refused) } if pieces.size > 1

        refused << [entries, e]
        []
      end

      # In a unit of work the input does the waiting, with no transaction open.
      def patiently(&)
        return yield(timeout) if Bridge::UnitOfWork.current

        @patience.try(endless: @diverting, &)
      end

      # Results that come past this filter again are not filtered again.
      def emitting
        Thread.current[@emitting] = true
        yield
      ensure
        Thread.current[@emitting] = nil
      end

      def emit_refused(tag, piece, error)
        time, record = Fluent::MessagePackFactory.msgpack_unpacker.feed(piece).read
        raise TypeError unless record.is_a?(Hash)

        @router.emit_error_event(tag, time, record, error)
      rescue EOFError, MessagePack::UnpackError, TypeError
        @router.emit_error_event(tag, Fluent::EventTime.now, { 'entries' => piece }, error)
      end
    end
  end
end
